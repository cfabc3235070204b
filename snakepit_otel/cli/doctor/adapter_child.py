"""Child process of the doctor: imports one adapter, and prints the result as JSON."""

from __future__ import annotations

import difflib
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
from snakepit_otel.errors import AdapterNotLoaded

_PACKAGE = str(Path(__file__).resolve().parents[2])
_IMPORT_REMEDY = "correct that line; python -c 'import …' shows the whole traceback"


def main() -> None:
    """Examine the adapter named by the first argument."""
    # What the adapter prints goes to standard error: standard output is for the result.
    output = os.dup(1)
    os.dup2(2, 1)
    # Adapters are found in the current folder, too, as by serve.
    sys.path.insert(0, str(Path.cwd()))
    found = _examine(sys.argv[1])
    os.write(output, json.dumps(found).encode())
    sys.stderr.flush()
    # Without waiting for threads of the adapter.
    os._exit(0)


def _examine(spec: str) -> dict[str, Any]:
    """Return the adapter's tools, or the fields of a problem."""
    try:
        adapter = load_adapter(spec)
    except AdapterNotLoaded as error:
        code, remedy = _diagnosis(*parts_of(spec), error)
        message = str(error).removeprefix(f"adapter {spec!r}").lstrip(": ")
        return {"code": code, "message": message, "remedy": remedy, "evidence": _users_line(error.__cause__)}
    try:
        host = AdapterHost(adapter, ToolThreads())
    except Exception as error:  # noqa: BLE001 - annotations can raise anything
        message, _, remedy = str(error).partition(": ")
        if "has no tools" in message:
            return {"code": "no_tools", "message": message, "remedy": remedy}
        message = f"{type(error).__name__}: {error}"
        return {"code": "refused", "message": message, "remedy": "correct the tool that it names"}
    return {"tools": sorted(host.tools), "takes_any": host.takes_any}


def _diagnosis(where: str, name: str, error: AdapterNotLoaded) -> tuple[str, str]:
    cause = error.__cause__
    if not where or not name:
        return "bad_name", "write package.module:Class or path/to/file.py:Class"
    if cause is None:
        return ("not_a_class", "name the class itself") if "not a class" in str(error) else _missing_class(where, name)
    if isinstance(cause, FileNotFoundError) and where.endswith(".py") and not Path(where).is_file():
        return "missing_file", "correct the path; it is looked for from the folder you are in"
    if not isinstance(cause, ModuleNotFoundError) or not cause.name:
        return "import_failed", _IMPORT_REMEDY
    if f"{where}.".startswith(f"{cause.name}."):
        return "missing_module", "correct the name, or run this in the folder that has the package (or install it)"
    return "missing_package", f"pip install {cause.name} into this environment: {sys.executable}"


def _missing_class(where: str, name: str) -> tuple[str, str]:
    module = import_from(where)
    classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
    near = difflib.get_close_matches(name, classes, 1)
    own = sorted(key for key in classes if getattr(vars(module)[key], "__module__", "") == module.__name__)
    hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(own)}" if own else ""
    return "missing_class", f"correct the name after the colon{hint}"


def _users_line(error: BaseException | None) -> str:
    """Return the last line of the user's own files in the traceback."""
    if error is None:
        return ""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {(error.text or '').strip()}"
    installed = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((*installed, _PACKAGE, "<frozen")):
            return f"{frame.filename}, line {frame.lineno}: {frame.line}"
    return ""


if __name__ == "__main__":
    main()
