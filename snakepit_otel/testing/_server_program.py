"""Program of the server that fixtures start: reads its options from standard input, and ends with it.

The first line is JSON: the folders of `sys.path`, and arguments of `Snakepit` with classes and functions by name. On
standard output comes one line of JSON: the address, or the error that kept it from starting.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
from typing import Any

from snakepit_otel import telemetry
from snakepit_otel.app import Snakepit
from snakepit_otel.common.printable import printable_error


def main() -> None:
    """Run the program."""
    asyncio.run(_main())


async def _main() -> None:
    given = asyncio.StreamReader(limit=16 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(given), sys.stdin)
    start = json.loads(await given.readline())
    sys.path[:] = start["path"]
    telemetry.log_to_stderr(logging.INFO)
    process = telemetry.setup("snakepit-authority", whole_process=True)
    try:
        async with _snakepit(start["options"]) as pit:
            _answer({"address": pit.socket})
            # The end of input is the end of whoever started this, killed or not.
            while await given.read(1024):
                pass
    except Exception as error:  # noqa: BLE001 - whatever it is, the tests that wait for a server have to show it
        _answer({"error": printable_error(error)})
        sys.exit(1)
    finally:
        process.shutdown()


def _snakepit(options: dict[str, Any]) -> Snakepit:
    tools = [_found(name) for name in options.pop("authority_tools", ())]
    return Snakepit(**options, authority_tools=tools)


def _found(name: str) -> Any:
    module, _, attributes = name.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found


def _answer(message: dict[str, str]) -> None:
    sys.stdout.write(f"{json.dumps(message)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
