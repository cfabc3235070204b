"""Loading of adapter classes by name."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType

from snakepit_otel.adapters._main_module import MAIN, UNNAMED, MainModule, main_module
from snakepit_otel.adapters._script_modules import load_script
from snakepit_otel.common.import_failure import import_failure
from snakepit_otel.errors import AdapterNotLoaded, ConfigurationError

_MOST_NAMED = 5


def spec_of(adapter: type | str) -> str:
    """Return the name by which another process finds the adapter.

    Raises `AdapterNotLoaded` for a class that cannot be found by name.
    """
    if isinstance(adapter, str):
        return adapter
    if "<locals>" in adapter.__qualname__:
        raise AdapterNotLoaded(
            f"adapter {adapter.__qualname__} is defined inside a function, where workers cannot import it; "
            "move it to the top of a module"
        )
    if adapter.__module__ == MAIN:
        script = getattr(sys.modules[MAIN], "__file__", None)
        if script is None:
            raise AdapterNotLoaded(
                f"adapter {adapter.__qualname__} is defined in an interactive session, where workers cannot "
                "import it; put it into a file"
            )
        return f"{Path(script).resolve()}:{adapter.__qualname__}"
    return f"{adapter.__module__}:{adapter.__qualname__}"


def name_of(adapter: type) -> str:
    """Return the display name of an adapter: module and class, or file and class."""
    module = adapter.__module__
    if module == UNNAMED:
        file = Path(sys.modules[module].__file__ or module)
        module = file.parent.stem if file.stem == MAIN else file.stem
    return f"{module}.{adapter.__qualname__}"


def load_adapter(spec: str, main: MainModule | None = None) -> type:
    """Import the adapter named by `package.module:Class`, `package.module.Class` or `path/to/file.py:Class`.

    `main` is the main module of the program whose adapter it is, if it is in that. Raises `AdapterNotLoaded`, whose
    cause is what the import raised.
    """
    where, name = parts_of(spec)
    if not where or not name:
        raise AdapterNotLoaded(f"adapter {spec!r} is not a name: write package.module:Class or path/to/file.py:Class")
    try:
        found: object = main.load() if main is not None else import_from(where)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise AdapterNotLoaded(
            f"adapter {spec!r}: importing {where} failed: {import_failure(error)}{_advice(where, error, main)}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise AdapterNotLoaded(f"adapter {spec!r}: {where} has no {name!r}")
        found = getattr(found, part)
    if not inspect.isclass(found):
        raise AdapterNotLoaded(f"adapter {spec!r} is a {type(found).__name__}, not a class")
    return found


def parts_of(spec: str) -> tuple[str, str]:
    """Return where the adapter is, a module or a file, and its name there; either is empty if the spec is no name."""
    where, colon, name = spec.rpartition(":")
    if not colon:
        where, _, name = spec.rpartition(".")
    return where, name


def import_from(where: str) -> ModuleType:
    return load_script(Path(where)) if where.endswith(".py") else importlib.import_module(where)


def main_module_of(spec: str) -> MainModule | None:
    where, _ = parts_of(spec)
    main = main_module()
    return main if main is not None and where and where in (main.name, main.file) else None


def located(spec: str) -> str:
    """Return the name by which the adapter is found from any folder: that of a file with its whole path."""
    where, name = parts_of(spec)
    main = main_module()
    is_file = where.endswith(".py") or (main is not None and Path(where).resolve() == Path(main.file))
    return f"{Path(where).resolve()}:{name}" if where and is_file else spec


def require_thread_safe(adapter: type, otherwise: str) -> None:
    """Raise `ConfigurationError` unless the adapter declares that its plain tools may run at the same time.

    `otherwise` is the alternative that the error names.
    """
    if getattr(adapter, "__thread_safe__", False) is not True:
        raise ConfigurationError(
            f"adapter {name_of(adapter)} does not declare that it is thread-safe; set __thread_safe__ = True on the "
            f"class if it is, or use {otherwise}"
        )


def _advice(where: str, error: BaseException, main: MainModule | None) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{where}.".startswith(f"{error.name}."):
        first = [entry or "the current folder" for entry in sys.path[:_MOST_NAMED]]
        more = len(sys.path) - len(first)
        return f"; it was looked for in {', '.join(first)}" + (f" and {more} more" if more else "")
    if isinstance(error, ImportError) and "no known parent package" in str(error):
        return "; a relative import needs a package: put __init__.py beside the file, or write package.module:Class"
    if main is not None and isinstance(error, RuntimeError):
        return "; workers import this file as well: what it does when it is run goes under if __name__ == '__main__'"
    return ""
