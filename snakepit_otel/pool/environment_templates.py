"""Templates of workers' environment variables: `{slot}` and `{pool}`, with `{{slot}}` for the text itself."""

from __future__ import annotations

import re

_FIELDS = ("slot", "pool")
# A name in braces alone: values that are JSON have other braces, which stay as they are.
_FIELD = re.compile(r"(\{?)\{([A-Za-z_]\w*)\}(\}?)")


def check_template(name: str, template: str) -> None:
    """Raise `ValueError` for a variable's template with another field."""
    for before, field, after in _FIELD.findall(template):
        if field not in _FIELDS and not (before and after):
            # Without the field, since values may be secrets.
            raise ValueError(
                f"the value of {name} has another field than {{slot}} and {{pool}}; write {{{{name}}}} for {{name}}"
            )


def filled(template: str, slot: int, pool: str) -> str:
    """Return a template, which was checked, with a worker's slot and the name of its pool."""
    values = {"slot": str(slot), "pool": pool}

    def value(match: re.Match[str]) -> str:
        before, field, after = match.groups()
        return f"{{{field}}}" if before and after else f"{before}{values.get(field, '')}{after}"

    return _FIELD.sub(value, template)
