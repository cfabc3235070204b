"""Scripts of the Redis backend, one for each operation, composed of the files in `scripts`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

_FOLDER = files(__package__) / "scripts"


class Script(NamedTuple):
    """A script: its text, the SHA-1 by which the server keeps it, and the kinds of its keys in their order.

    `is_durable` where an acknowledged call must not be lost, so that `durability` applies to it.
    """

    name: str
    source: str
    sha: str
    keys: tuple[str, ...]
    is_durable: bool


def load_script(name: str) -> Script:
    """Return the script of a file, with the parts that its head names, and locals for its keys."""
    text = _text(name)
    head = _head(text)
    keys, flags = tuple(head["keys"]), head.get("flags", ())
    allowed = [flag for flag in flags if flag != "durable"]
    source = "\n".join(
        (
            f"#!lua flags={','.join(allowed)}" if allowed else "#!lua",
            f"local {', '.join(key.upper() for key in keys)} = {', '.join(f'KEYS[{i + 1}]' for i in range(len(keys)))}",
            *(_text(f"_{part}") for part in head.get("parts", ())),
            text,
        )
    )
    # The server names scripts by their SHA-1; nothing is kept secret by it.
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source, sha, keys, "durable" in flags)


def _text(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


def _head(text: str) -> dict[str, Sequence[str]]:
    lines = (line[3:].partition(": ") for line in text.splitlines()[:3] if line.startswith("-- "))
    return {name: values.split() for name, _, values in lines if name in ("keys", "parts", "flags")}


OPEN = load_script("open")
CREATE = load_script("create")
GET = load_script("get")
READ = load_script("read")
WRITE = load_script("write")
ASSIGN = load_script("assign")
DELETE = load_script("delete")
PRUNE = load_script("prune")
EVICT = load_script("evict")
PAGE = load_script("page")
OWNED = load_script("owned")
SUSPECTS = load_script("suspects")
CLAIM = load_script("claim")
STATS = load_script("stats")
LIMITS = load_script("limits")
SCRIPTS = (OPEN, CREATE, GET, READ, WRITE, ASSIGN, DELETE, PRUNE, EVICT, PAGE, OWNED, SUSPECTS, CLAIM, STATS, LIMITS)
