"""Finding an adapter class by its name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType

from snakepit_otel.errors import AdapterNotLoaded, ConfigurationError

SCRIPT_MODULE = "__snakepit_script__"


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
    if adapter.__module__ == "__main__":
        script = getattr(sys.modules["__main__"], "__file__", None)
        if script is None:
            raise AdapterNotLoaded(
                f"adapter {adapter.__qualname__} is defined in an interactive session, where workers cannot "
                "import it; put it into a file"
            )
        return f"{Path(script).resolve()}:{adapter.__qualname__}"
    return f"{adapter.__module__}:{adapter.__qualname__}"


def name_of(adapter: type) -> str:
    """Return what people call the adapter: module and class, or file and class."""
    module = adapter.__module__
    if module == SCRIPT_MODULE:
        module = Path(sys.modules[module].__file__ or module).stem
    return f"{module}.{adapter.__qualname__}"


def load_adapter(spec: str) -> type:
    """Import the adapter named by `package.module:Class`, `package.module.Class` or `path/to/file.py:Class`.

    Raises `AdapterNotLoaded`, whose cause is what the import raised.
    """
    where, colon, name = spec.rpartition(":")
    if not colon:
        where, _, name = spec.rpartition(".")
    if not where or not name:
        raise AdapterNotLoaded(f"adapter {spec!r} is not a name: say package.module:Class or path/to/file.py:Class")
    try:
        found: object = _load_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise AdapterNotLoaded(
            f"adapter {spec!r}: importing {where} failed: {type(error).__name__}: {error}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise AdapterNotLoaded(f"adapter {spec!r}: {where} has no {name!r}")
        found = getattr(found, part)
    if not inspect.isclass(found):
        raise AdapterNotLoaded(f"adapter {spec!r} is a {type(found).__name__}, not a class")
    return found


def require_thread_safe(adapter: type, otherwise: str) -> None:
    """Raise `ConfigurationError` unless the adapter says that its plain tools may run at the same time.

    `otherwise` is what to use if they may not.
    """
    if getattr(adapter, "__thread_safe__", False) is not True:
        raise ConfigurationError(
            f"adapter {name_of(adapter)} does not say that it is thread-safe; set __thread_safe__ = True on the "
            f"class if it is, or use {otherwise}"
        )


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    # Not under the name __main__, so that what a script does when run is not done again.
    spec = importlib.util.spec_from_file_location(SCRIPT_MODULE, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT_MODULE] = module
    sys.path.insert(0, str(path.resolve().parent))
    spec.loader.exec_module(module)
    return module
