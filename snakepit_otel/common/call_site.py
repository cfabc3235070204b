"""The line of a user's program that called this package, by which leaks are attributed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from functools import lru_cache
from pathlib import Path

_OUR_CODE = f"{Path(__file__).parents[1]}/"
_COMMAND_LINE = _OUR_CODE + "cli/"
_MACHINERY = (_OUR_CODE, f"{Path(asyncio.__file__).parent}/", contextlib.__file__, "<")


def call_site() -> str:
    """Return the nearest frame of a caller, the command line among them, as `file:line in function`."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_MACHINERY) or file.startswith(_COMMAND_LINE):
            return f"{_short(file)}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "unknown"


@lru_cache(maxsize=1024)
def _short(file: str) -> str:
    parts = Path(file).parts
    return "/".join(parts[-2:])
