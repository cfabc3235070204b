"""Description of a buffer, which messages have in its place, and its JSON form."""

from __future__ import annotations

import base64
import binascii
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

from snakepit_otel.common.json_keys import ZERO_COPY
from snakepit_otel.errors import ReferenceRefused

_ID = re.compile("[0-9a-f]{32}")
_MOST_DIMENSIONS = 64
_LARGEST = (1 << 63) - 1
_FIELDS = frozenset({ZERO_COPY, "kind", "device", "dtype", "shape", "owner", "ref", "copy", "bytes", "metadata"})
_METADATA = frozenset({"offset", "strides", "form", "data"})


class Kind(StrEnum):
    """The protocol of a buffer's content."""

    DLPACK = "dlpack"
    ARROW = "arrow"


class Owner(StrEnum):
    """The side that created a reference: `elixir` for the authority and its callers, `python` for a worker."""

    ELIXIR = "elixir"
    PYTHON = "python"


class Form(StrEnum):
    """The type of the Arrow value that a stream of bytes was made from."""

    TABLE = "table"
    BATCH = "batch"
    ARRAY = "array"
    CHUNKED = "chunked"


@dataclass(frozen=True, slots=True)
class Description:
    """A buffer's description. `size`, `strides` and `offset` are in bytes; `shape` of a table is (rows, columns).

    `data` is the content itself, where it is small.
    """

    kind: Kind
    owner: Owner
    ref: str
    size: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    offset: int = 0
    form: Form | None = None
    device: str = "cpu"
    copy: bool = False
    data: bytes | None = None

    def to_json(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        if self.offset:
            metadata["offset"] = self.offset
        if self.strides is not None:
            metadata["strides"] = list(self.strides)
        if self.form is not None:
            metadata["form"] = self.form.value
        if self.data is not None:
            metadata["data"] = base64.b64encode(self.data).decode()
        return {
            ZERO_COPY: True,
            "kind": self.kind.value,
            "device": self.device,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "owner": self.owner.value,
            "ref": self.ref,
            "copy": self.copy,
            "bytes": self.size,
            "metadata": metadata,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the JSON form. Raises `ReferenceRefused`, naming the field."""
        if not isinstance(value, Mapping):
            raise ReferenceRefused(f"a reference is a JSON object, and not {_shown(value)}")
        given = dict(value)
        if unknown := given.keys() - _FIELDS:
            raise ReferenceRefused(f"a reference has the unknown field {min(map(str, unknown))!r:.60}")
        metadata = given.get("metadata", {})
        if not isinstance(metadata, Mapping) or metadata.keys() - _METADATA:
            raise _bad("metadata", metadata, f"an object with some of {', '.join(sorted(_METADATA))}")
        ref = given.get("ref")
        if not isinstance(ref, str) or not _ID.fullmatch(ref):
            raise _bad("ref", ref, "32 hexadecimal digits")
        device = given.get("device", "cpu")
        if device != "cpu":
            raise ReferenceRefused(f"the reference is on the device {_shown(device)}; only cpu memory can be shared")
        strides = metadata.get("strides")
        form = metadata.get("form")
        return cls(
            kind=_one_of(Kind, given, "kind"),
            owner=_one_of(Owner, given, "owner"),
            ref=ref,
            size=_whole(given.get("bytes"), "bytes"),
            dtype=_text(given.get("dtype"), "dtype"),
            shape=_whole_numbers(given.get("shape"), "shape"),
            strides=None if strides is None else _whole_numbers(strides, "strides"),
            offset=_whole(metadata.get("offset", 0), "offset"),
            form=None if form is None else _one_of(Form, metadata, "form"),
            copy=_boolean(given.get("copy", False), "copy"),
            data=_data(metadata.get("data")),
        )

    @classmethod
    def of_foreign(cls, form: dict[str, Any]) -> Self:
        """Return the description that another program has sent, with defaults for fields that are malformed."""
        kind, owner, size, shape = (form.get(field) for field in ("kind", "owner", "bytes", "shape"))
        return cls(
            Kind(kind) if kind in list(Kind) else Kind.DLPACK,
            Owner(owner) if owner in list(Owner) else Owner.ELIXIR,
            str(form.get("ref", "")),
            size if isinstance(size, int) else 0,
            str(form.get("dtype", "")),
            tuple(part for part in shape if isinstance(part, int)) if isinstance(shape, list) else (),
            device=str(form.get("device", "cpu")),
            form=Form.TABLE if kind == Kind.ARROW else None,
        )

    def as_copy(self) -> Description:
        return replace(self, copy=True)

    def check_same(self, other: Description) -> None:
        """Raise `ReferenceRefused`, naming the field, unless `other` equals it but for `copy` and `data`."""
        for field in ("ref", "kind", "owner", "size", "dtype", "shape", "strides", "offset", "form", "device"):
            mine, given = getattr(self, field), getattr(other, field)
            if mine != given:
                raise ReferenceRefused(f"the reference says {field} {given!r:.60}, but it is {mine!r:.60}")


def replaced(value: Any, by: Callable[[dict[str, Any]], Any]) -> Any:
    """Return JSON, changed in place, with each reference's form replaced by what `by` makes of it."""
    outermost = [value]
    pending: list[Any] = [outermost]
    while pending:
        part = pending.pop()
        for place, inner in part.items() if type(part) is dict else enumerate(part):
            # Skip empty parts: a value of many empty parts would take as much memory once more.
            if not inner:
                continue
            kind = type(inner)
            if kind is dict and inner.get(ZERO_COPY) is True:
                part[place] = by(inner)
            elif kind is dict or kind is list:
                pending.append(inner)
    return outermost[0]


def _one_of(kind: type[StrEnum], given: Mapping[str, Any], field: str) -> Any:
    value = given.get(field)
    if not isinstance(value, str) or value not in list(kind):
        raise _bad(field, value, f"one of {', '.join(kind)}")
    return kind(value)


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or len(value) > 1_000:
        raise _bad(field, value, "text")
    return value


def _boolean(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise _bad(field, value, "true or false")
    return value


def _whole(value: Any, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
        raise _bad(field, value, "a whole number, not negative, below 2**63")
    return value


def _whole_numbers(value: Any, field: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > _MOST_DIMENSIONS:
        raise _bad(field, value, f"a list of at most {_MOST_DIMENSIONS} whole numbers")
    return tuple(_whole(part, field) for part in value)


def _data(value: Any) -> bytes | None:
    if value is None:
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise _bad("data", value, "base64") from None


def _bad(field: str, value: Any, wanted: str) -> ReferenceRefused:
    return ReferenceRefused(f"{field} of a reference is {_shown(value)}; it must be {wanted}")


def _shown(value: Any) -> str:
    # What a peer sends can be nested more deeply than `repr` can follow.
    return f"{reprlib.repr(value):.60}"
