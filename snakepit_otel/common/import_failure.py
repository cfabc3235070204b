"""Text of a failed import, with the place in the user's code."""

from __future__ import annotations

import importlib
import sysconfig
import traceback
from pathlib import Path

from snakepit_otel.common.attempt import attempt

# Their frames show nothing of the user's.
_HIDDEN = (f"{Path(__file__).parents[1]}/", "<frozen ", importlib.__file__)


def import_failure(error: BaseException) -> str:
    """Return what an import raised, with file and line of the last of the user's frames.

    Frames of this package are none of them, and of the standard library and installed packages only without others.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    text = attempt(str, error).value
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_HIDDEN)]
    installed = tuple(f"{path}/" for path in set(sysconfig.get_paths().values()))
    frames = [frame for frame in frames if not frame.filename.startswith(installed)] or frames
    if not frames:
        return message
    last = frames[-1]
    within = "" if last.name == "<module>" else f", in {last.name}"
    return f"{message} ({last.filename}, line {last.lineno}{within})"
