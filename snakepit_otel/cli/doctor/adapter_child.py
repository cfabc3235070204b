"""Child process of the doctor: imports one adapter, and prints the result as JSON."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import json
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Any

from snakepit_otel.adapters._adapter_loading import import_from, load_adapter, parts_of
from snakepit_otel.adapters._lifecycle import AdapterHost
from snakepit_otel.adapters._tool_threads import ToolThreads
from snakepit_otel.errors import AdapterNotLoaded, SnakepitError

_PACKAGE = str(Path(__file__).resolve().parents[2])


def main() -> None:
    """Examine the adapter named by the first argument."""
    # What the adapter prints goes to standard error: standard output is for the result.
    ours = os.dup(1)
    os.dup2(2, 1)
    # Adapters are found in the current folder, too, as by serve.
    sys.path.insert(0, str(Path.cwd()))
    found = _examine(sys.argv[1])
    os.write(ours, json.dumps(found).encode())
    sys.stderr.flush()
    # Without waiting for threads of the adapter.
    os._exit(0)


def _examine(spec: str) -> dict[str, Any]:
    try:
        adapter = load_adapter(spec)
    except AdapterNotLoaded as error:
        return _not_loaded(spec, error)
    try:
        host = AdapterHost(adapter, ToolThreads())
    except SnakepitError as error:
        code = "no_tools" if "has no tools" in str(error) else "refused"
        return {"code": code, "message": str(error).partition(":")[0] if code == "no_tools" else str(error)}
    except Exception as error:  # noqa: BLE001 - annotations can raise anything
        return {"code": "refused", "message": f"{type(error).__name__}: {error}"}
    return {"tools": sorted(host.tools), "takes_any": host.takes_any}


def _not_loaded(spec: str, error: AdapterNotLoaded) -> dict[str, Any]:
    where, name = parts_of(spec)
    cause = error.__cause__
    if cause is None:
        return _not_found(where, name, error)
    if isinstance(cause, FileNotFoundError) and where.endswith(".py") and not Path(where).is_file():
        return {"code": "missing_file", "message": str(cause)}
    if isinstance(cause, ModuleNotFoundError) and cause.name and f"{where}.".startswith(f"{cause.name}."):
        return {
            "code": "missing_module",
            "message": f"there is no module {cause.name!r} in {Path.cwd()} or on Python's path",
        }
    place = _users_line(cause)
    if isinstance(cause, ModuleNotFoundError) and cause.name and not _is_known(cause.name):
        return {
            "code": "missing_package",
            "message": f"it imports {cause.name!r}, which is not installed",
            "where": place,
        }
    return {"code": "import_failed", "message": f"importing it raises {type(cause).__name__}: {cause}", "where": place}


def _not_found(where: str, name: str, error: AdapterNotLoaded) -> dict[str, Any]:
    if "is not a name" in str(error):
        return {"code": "bad_name", "message": f"{where or name!r} is no name of a class"}
    if "not a class" in str(error):
        return {"code": "not_a_class", "message": str(error).partition(" is ")[2].join(("it is ", ""))}
    module = import_from(where)
    classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
    near = difflib.get_close_matches(name, classes, 1)
    own = sorted(key for key in classes if getattr(vars(module)[key], "__module__", "") == module.__name__)
    hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(own)}" if own else ""
    return {"code": "missing_class", "message": f"{where} has no {name!r}", "near": hint}


def _users_line(error: BaseException) -> str:
    """Return the last line of the user's own files in the traceback."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {(error.text or '').strip()}"
    installed = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")})
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((*installed, _PACKAGE, "<frozen"))
    ]
    return f"{frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line}" if frames else ""


def _is_known(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


if __name__ == "__main__":
    main()
