"""Say what the registry's metrics are called in Prometheus, behind otel-collector.yaml, and keep docs/collector.md so.

python -m semconv.prometheus_names            write the table in docs/collector.md
python -m semconv.prometheus_names --check    write nothing, exit 1 if it is out of date
"""

from __future__ import annotations

import re
import sys

from semconv.generate import ROOT, Registry, attribute_names, ticked

PAGE = ROOT / "docs" / "collector.md"
START, END = "<!-- names: make generate -->\n", "<!-- end of names -->\n"

# The units that the registry may use, as the specification for Prometheus spells them. A unit in braces has no name.
_UNITS = {"s": "seconds", "By": "bytes", "1": ""}


def series_name(name: str, instrument: str, unit: str) -> str:
    """Return what a metric is called in Prometheus; of a histogram, its name without `_bucket`, `_sum` and `_count`.

    Raises `ValueError` for a unit whose name is not known here.
    """
    if unit.startswith("{"):
        suffix = ""
    elif unit in _UNITS:
        suffix = _UNITS[unit]
    else:
        raise ValueError(f"the metric {name!r} has the unit {unit!r}; say in {__file__} how Prometheus names it")
    tokens = re.findall(r"[A-Za-z0-9:]+", name)
    if suffix and suffix not in tokens:
        tokens.append(suffix)
    if instrument == "counter":
        tokens = [token for token in tokens if token != "total"] + ["total"]
    # A gauge in the narrow sense; an updowncounter with the unit 1 is a gauge to the exporter as well.
    if unit == "1" and instrument in ("gauge", "updowncounter"):
        tokens = [token for token in tokens if token != "ratio"] + ["ratio"]
    return "_".join(tokens)


def label_name(attribute: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", attribute)


def page(text: str, registry: Registry) -> str:
    lines = ["| metric | in Prometheus | labels of its own |", "| --- | --- | --- |"]
    for group in registry.metrics:
        series = series_name(group["metric_name"], group["instrument"], group["unit"])
        name = f"`{series}_bucket`, `_sum`, `_count`" if group["instrument"] == "histogram" else f"`{series}`"
        labels = ticked([label_name(attribute) for attribute in attribute_names(group)])
        lines.append(f"| `{group['metric_name']}` | {name} | {labels} |")
    before, rest = text.split(START)
    _, after = rest.split(END)
    return before + START + "\n".join(lines) + "\n" + END + after


def main(arguments: list[str]) -> int:
    old = PAGE.read_text()
    new = page(old, Registry.load())
    if "--check" in arguments:
        if new != old:
            print(f"{PAGE.relative_to(ROOT)} is not what the registry says: run make generate", file=sys.stderr)
        return int(new != old)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
