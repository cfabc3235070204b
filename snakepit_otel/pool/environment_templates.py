"""Templates of workers' environment variables: `{slot}` and `{pool}`, with `{{` and `}}` for braces."""

from __future__ import annotations

from string import Formatter

_FIELDS = ("slot", "pool")


def check_template(name: str, template: str) -> None:
    """Raise `ValueError` for a variable's template with other fields, or with a brace on its own."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError:
        raise ValueError(f"the value of {name} has a brace on its own; {_ADVICE}") from None
    for _, field, specification, conversion in parts:
        if field is not None and (field not in _FIELDS or specification or conversion):
            # Without the field, since values may be secrets.
            raise ValueError(f"the value of {name} has another field than {{slot}} and {{pool}}; {_ADVICE}")


def filled(template: str, slot: int, pool: str) -> str:
    """Return a template, which was checked, with a worker's slot and the name of its pool."""
    return template.format(slot=slot, pool=pool)


_ADVICE = "write {{ and }} for braces"
