"""Runs one input of a target: `python -m tests.fuzz.replay TARGET FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fuzz.kit import TARGETS
from tests.fuzz.targets import register_all


def main() -> None:
    """Run it; end with its traceback, if it has one."""
    register_all()
    name, file = sys.argv[1:]
    TARGETS[name].check_with_memory(Path(file).read_bytes())
    print(f"{name}: nothing is wrong with {file}")


if __name__ == "__main__":
    main()
