"""A program that makes one middleware and writes what keeps it from being made; standard input has its options."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Check the middleware named by the first argument."""
    from snakepit_otel.errors import ConfigurationError
    from snakepit_otel.middleware._loading import load_middleware

    options = json.load(sys.stdin)
    # What it prints while it is imported goes to standard error, so that standard output has the result alone.
    output = os.dup(1)
    os.dup2(2, 1)
    sys.path.insert(0, str(Path.cwd()))
    error = ""
    try:
        load_middleware(sys.argv[1], options)
    except ConfigurationError as found:
        error = str(found)
    os.write(output, json.dumps({"error": error}).encode())
    # Threads that it has started must not keep this process.
    os._exit(0)


if __name__ == "__main__":
    main()
