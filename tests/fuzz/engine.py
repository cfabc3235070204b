"""Runs one target for some time: `python -m tests.fuzz.engine MODULE TARGET SECONDS DIRECTORY [RUNS]`.

By atheris, which is guided by coverage of this package, if it is installed; else by blind mutation of the seeds, which
finds less, and is there so that the same command does something everywhere.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import sys
import tempfile
import time
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fuzz.kit import Target

FOUND = 77
"""The status of a run that has found something, as libFuzzer has it."""
DICTIONARY = Path(__file__).parent / "dictionary.txt"
_LONGEST_RUN = 20
"""Seconds of one input after which it counts as hanging; far beyond what steps allow, on a slow machine as well."""
_MOST_MEMORY = 1_500
"""MiB of the whole process."""


def main() -> None:
    """Fuzz; the findings are files in the directory, whose names begin with `crash-`, `timeout-` or `oom-`."""
    module, name, seconds, directory = sys.argv[1], sys.argv[2], float(sys.argv[3]), Path(sys.argv[4])
    runs = int(sys.argv[5]) if len(sys.argv) > 5 else None
    guided = importlib.util.find_spec("atheris") is not None and os.environ.get("FUZZ_ENGINE") != "blind"
    if guided:
        import atheris

        # Comparisons with texts, which a decoder's words are found by, are seen as well.
        atheris.enabled_hooks.add("str")
        importing: Any = atheris.instrument_imports(include=["snakepit_otel", "tomllib"])
    else:
        importing = nullcontext()
    with importing:
        # Its own module alone: what is imported is instrumented first, which takes longer than the rest.
        importlib.import_module(module)
    from tests.fuzz.kit import TARGETS

    if guided:
        _guided(TARGETS[name], seconds, directory, runs)
    else:
        _blind(TARGETS[name], seconds, directory, runs)


def _guided(target: Target, seconds: float, directory: Path, runs: int | None) -> None:
    import atheris

    corpus, seeds = directory / "corpus", directory / "seeds"
    for made in (corpus, seeds):
        made.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (seeds / seed.name).write_bytes(seed.read_bytes())
    arguments = [
        sys.argv[0],
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={target.largest}",
        f"-timeout={_LONGEST_RUN}",
        f"-rss_limit_mb={_MOST_MEMORY}",
        f"-artifact_prefix={directory}/",
        f"-dict={DICTIONARY}",
        "-print_final_stats=1",
        "-len_control=20",
        *([] if runs is None else [f"-runs={runs}", "-seed=1"]),
        str(corpus),
        str(seeds),
    ]
    atheris.Setup(arguments, target.check)
    atheris.Fuzz()


def _blind(target: Target, seconds: float, directory: Path, runs: int | None) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    chance = random.Random(None if runs is None else 1)
    pool = [seed.read_bytes() for seed in target.seeds()] or [b""]
    words = [eval(f"b{line.strip()}") for line in DICTIONARY.read_text().splitlines() if line.startswith('"')]
    ends, done = time.monotonic() + seconds, 0
    while time.monotonic() < ends and done != runs:
        data = _mutated(chance, pool, words)[: target.largest]
        done += 1
        try:
            target.check(data)
        except BaseException:  # whatever it is
            traceback.print_exc()
            with tempfile.NamedTemporaryFile(dir=directory, prefix="crash-", delete=False) as made:
                made.write(data)
            sys.stderr.write(f"stat::number_of_executed_units: {done}\n")
            sys.stderr.flush()
            os._exit(FOUND)
    sys.stderr.write(f"stat::number_of_executed_units: {done}\n")


def _mutated(chance: random.Random, pool: list[bytes], words: list[bytes]) -> bytes:
    data = bytearray(chance.choice(pool) if chance.random() < 0.9 else chance.randbytes(chance.randrange(200)))
    for _ in range(1 << chance.randrange(5)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(5):
            case 0 if data:
                data[at - 1] = chance.randrange(256)
            case 1:
                data[at:at] = chance.choice(words)
            case 2:
                data[at : at + chance.randrange(16)] = b""
            case 3:
                other = chance.choice(pool)
                start = chance.randrange(len(other) + 1)
                data[at:at] = other[start : start + chance.randrange(64)]
            case _:
                data[at:at] = chance.randbytes(chance.randrange(8))
    return bytes(data)


if __name__ == "__main__":
    main()
