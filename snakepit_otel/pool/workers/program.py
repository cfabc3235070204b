"""The program that workers belong to: how its interpreter was started, and where it finds modules."""

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


def _usable(entries: Iterable[object]) -> list[str]:
    """Return an import path that means the same in another process: what is no text is passed over by imports, too."""
    texts = (entry for entry in entries if isinstance(entry, str))
    # What does not exist is left as it is: some are no paths, but names that a finder of their own knows.
    return [str(Path(entry).absolute()) if not entry or Path(entry).exists() else entry for entry in texts]


_OURS = _usable(sys.path)
"""The import path as it was when this program imported us; what has come since must not hide what we need."""


class Program(NamedTuple):
    """What a worker has to know of the program."""

    import_path_of_ours: list[str]
    """Where we come from, with all that we need."""
    import_path: list[str]
    """Where the adapter is, with all that it needs."""
    main: MainModule | None
    """The main module, if it has the adapter."""


def this_program(adapter: str, python_path: str = "") -> Program:
    """Describe this program as it is now, for workers of this adapter that have a `PYTHONPATH` of their own."""
    path = _usable(sys.path)
    path[1:1] = _usable(entry for entry in python_path.split(os.pathsep) if entry)
    main = main_module_of(adapter)
    if main is not None:
        main.share_name()
    return Program(_OURS, path, main)


def interpreter() -> list[str]:
    """Return the command of an interpreter like this one, which imports nothing from beside the file that it runs."""
    # Those that multiprocessing starts its processes with; each one word, so that the sweep knows them for options.
    options = iter(subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]
    return [sys.executable, *(f"-X{next(options)}" if option == "-X" else option for option in options), "-P"]
