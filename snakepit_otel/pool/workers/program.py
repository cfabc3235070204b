"""The program that workers belong to: the command of its interpreter, and its import path."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from snakepit_otel.adapters._adapter_loading import main_module_of
from snakepit_otel.adapters._main_module import MainModule

WORKER_PROGRAM = str(Path(__file__).with_name("worker_main.py").absolute())


def _portable_path(entries: Iterable[object]) -> list[str]:
    """Return an import path valid in another process, without entries that are no text, which imports skip too."""
    texts = (entry for entry in entries if isinstance(entry, str))
    # Entries that do not exist stay: some are no paths, but names for an import hook.
    return [str(Path(entry).absolute()) if not entry or Path(entry).exists() else entry for entry in texts]


# As of the import of this module: later entries must not shadow this package's dependencies.
PACKAGE_PATH = _portable_path(sys.path)


class Program(NamedTuple):
    """Interpreter state of a program that its workers need."""

    package_path: list[str]  # finds this package and its dependencies
    import_path: list[str]  # finds the adapter and its dependencies
    main: MainModule | None  # if it has the adapter


def this_program(adapter: str, python_path: str = "") -> Program:
    """Describe this program as it is now, for workers of this adapter that have a `PYTHONPATH` of their own."""
    path = _portable_path(sys.path)
    path[1:1] = _portable_path(entry for entry in python_path.split(os.pathsep) if entry)
    main = main_module_of(adapter)
    if main is not None:
        main.share_name()
    return Program(PACKAGE_PATH, path, main)


def interpreter() -> list[str]:
    """Return the command of an interpreter like this one, which does not import from its script's directory."""
    # As multiprocessing does; each option is one word, so that the sweep for orphans recognizes it as one.
    options = iter(subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]
    return [sys.executable, *(f"-X{next(options)}" if option == "-X" else option for option in options), "-P"]
