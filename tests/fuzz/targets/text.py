"""Text of peers, shown."""

from __future__ import annotations

import json

from snakepit_otel.common.printable import (
    MAX_NAME_CHARACTERS,
    printable,
    printable_error,
    printable_json,
    printable_lines,
)
from tests.fuzz.kit import insist, target
from tests.hostile_text import unsafe

_JOINING = {"\u200c", "\u200d"}


@target()
def printable_text(data: bytes) -> None:
    """Shown text is inert, says so where it is cut, and stays what it is when it is shown again."""
    for text in (
        data.decode("utf-8", "surrogateescape"),
        data.decode("utf-16-le", "surrogatepass" if len(data) % 2 == 0 else "replace"),
    ):
        shown = printable(text)
        insist(not unsafe(shown, lines=False), repr(shown))
        insist(len(shown) <= MAX_NAME_CHARACTERS)
        insist(printable(shown) == shown)
        insist(shown.splitlines() in ([], [shown]))
        shown.encode()
        insist(not unsafe(printable_error(ValueError(text)), lines=False))
        insist(unsafe(printable_lines(text, "> ")) <= {"\t", *_JOINING})
        document = json.dumps({text: [text]}, ensure_ascii=False)
        safe = printable_json(document)
        insist(unsafe(safe) <= _JOINING, repr(safe))
        insist(json.loads(safe) == json.loads(document), "a document changed:", document)
