"""Loading of Python files by path, under the module names that imports give them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from snakepit_otel.adapters._main_module import imports_as, load_unnamed


def load_script(path: Path) -> ModuleType:
    """Import a file under the name that it would be imported by from its own folder, or from around its package.

    Other processes that get our import path find it by that name. A file without such a name, because it is no name or
    belongs to another module, is loaded as a main module is. What stands under `if __name__ == "__main__":` does not
    run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    file = path.resolve()
    folder, name = file.parent, file.stem
    if (folder / "__init__.py").is_file():
        # What imports the file's neighbours by their plain names goes on finding them, and hides nothing.
        sys.path.append(str(folder))
        name = "" if name == "__init__" else name
        while (folder / "__init__.py").is_file():
            folder, name = folder.parent, f"{folder.name}.{name}".rstrip(".")
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))
    return importlib.import_module(name) if imports_as(name, file) else load_unnamed(str(file))
