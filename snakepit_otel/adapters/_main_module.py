"""The main module of a program, which other processes import by its real name, or load under another name.

`python app.py` and `python -m package.app` run a module as `__main__`, a name that is another module's in every other
process. Workers import it by the name that an import statement would use. Where it has none, as with `my.app.py` or
`__main__.py` in a zip file, they load it as processes that multiprocessing spawns do: as `__mp_main__`.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location, spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

MAIN = "__main__"
UNNAMED = "__mp_main__"  # as multiprocessing has it, in the processes that it starts
_replaced: list[ModuleType] = []  # earlier `__main__` modules; kept, since their functions may still run


class MainModule(NamedTuple):
    """Description of a main module, by which another process can load it.

    `file` is its path, absolute and without links; `name` what it can be imported as, empty if it cannot. `container`
    is the zip file or folder that was run for the `__main__.py` in it.
    """

    file: str
    name: str
    container: str = ""

    def load(self) -> ModuleType:
        """Return the module. What stands under `if __name__ == "__main__":` does not run.

        It stands for `__main__` from here on, so that pickles that the program made of its classes mean those of the
        module.
        """
        if not self.name:
            return load_unnamed(self.file, self.container)
        module = importlib.import_module(self.name)
        # Without a file: processes that multiprocessing starts here import it by its name, and need not run it as well.
        _stand_for_main(module)
        return module

    def share_name(self) -> None:
        """Register the module under the name that workers import it by, which is in their pickles."""
        sys.modules.setdefault(self.name or UNNAMED, sys.modules[MAIN])


def main_module() -> MainModule | None:
    """Return that of this program; None for an interactive session, or a program that came by standard input."""
    main = sys.modules[MAIN]
    file = getattr(main, "__file__", None)
    if not isinstance(file, str):
        return None
    path = Path(file).resolve()
    if main.__spec__ is not None and main.__spec__.name != MAIN:
        return MainModule(str(path), main.__spec__.name)
    if path.stem == MAIN:
        return MainModule(str(path), "", str(path.parent))
    return MainModule(str(path), path.stem if imports_as(path.stem, path) else "")


def imports_as(name: str, file: Path) -> bool:
    """Return whether an import of this name gives this file, here and in processes with the same import path."""
    first, _, rest = name.partition(".")
    if first in sys.stdlib_module_names or first in (MAIN, UNNAMED) or (rest and "." in file.stem):
        return False
    try:
        if name in sys.modules:
            found = getattr(sys.modules[name], "__file__", None)
        else:
            spec = find_spec(name)
            found = spec.origin if spec is not None else None
    except ModuleNotFoundError as error:
        # Its package is another's, which has no such module; what a package itself misses is for whoever asked.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        return False
    except ValueError:
        return False
    return isinstance(found, str) and os.path.realpath(found) == str(file)


def load_unnamed(file: str, container: str = "") -> ModuleType:
    """Load a file that no import finds, or `__main__.py` in a container.

    Processes that multiprocessing starts here load it as well, before anything else.
    """
    spec = _spec_in(container) if container else _spec_of(file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = module_from_spec(spec)
    sys.modules[UNNAMED] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[UNNAMED]
        raise
    _stand_for_main(module, container or file)
    return module


def _spec_of(file: str) -> ModuleSpec | None:
    kind = SourcelessFileLoader if file.endswith(".pyc") else SourceFileLoader
    return spec_from_file_location(UNNAMED, file, loader=kind(UNNAMED, file))


def _spec_in(container: str) -> ModuleSpec | None:
    found = PathFinder.find_spec(MAIN, [container])
    if found is None or not hasattr(found.loader, "get_code"):
        return None
    spec = spec_from_loader(UNNAMED, _Renaming(found.loader), origin=found.origin)
    if spec is not None:
        spec.has_location = True
    return spec


class _Renaming(InspectLoader):
    """Loads a module that another loader has as `__main__`."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def get_code(self, _fullname: str) -> CodeType | None:
        return self._loader.get_code(MAIN)  # type: ignore[no-any-return]

    def get_source(self, _fullname: str) -> str | None:
        return self._loader.get_source(MAIN)  # type: ignore[no-any-return]


def _stand_for_main(module: ModuleType, path: str | None = None) -> None:
    """Put a module in the place of `__main__`; `path` is the file that multiprocessing's processes run."""
    stand_in = ModuleType(MAIN)

    def attribute(name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"module {MAIN!r} has no attribute {name!r}")
        return getattr(module, name)

    vars(stand_in)["__getattr__"] = attribute
    if path is not None:
        stand_in.__file__ = path
    _replaced.append(sys.modules[MAIN])
    sys.modules[MAIN] = stand_in
    sys.modules[UNNAMED] = module
