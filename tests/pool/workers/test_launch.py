"""Numeric libraries use as many threads in a worker as they are told to."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.pool.workers.launch import thread_limits

ALL = {
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",
}


def test_every_library_has_a_limit() -> None:
    """Each variable has the number of threads."""
    assert thread_limits(2, {}) == dict.fromkeys(ALL, "2")


def test_none_leaves_it_to_them() -> None:
    """With 0 nothing is said."""
    assert thread_limits(0, {}) == {}


def test_variables_of_the_user_are_kept() -> None:
    """A variable that is set already is left alone."""
    assert thread_limits(1, {"MKL_NUM_THREADS": "8"}) == dict.fromkeys(ALL - {"MKL_NUM_THREADS"}, "1")


def test_openmp_set_by_the_user_covers_libraries_that_follow_it() -> None:
    """A library whose own variable would override the user's `OMP_NUM_THREADS` is not told."""
    own = {"NUMBA_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS"}
    assert thread_limits(1, {"OMP_NUM_THREADS": "8"}) == dict.fromkeys(own, "1")


@given(st.integers(1, 64), st.dictionaries(st.sampled_from(sorted(ALL)) | st.text(max_size=3), st.text(max_size=3)))
def test_properties_of_any_environment(threads: int, environ: dict[str, str]) -> None:
    """Nothing that is set is changed, and asking twice changes nothing more."""
    told = thread_limits(threads, environ)
    assert not told.keys() & environ.keys()
    assert set(told.values()) <= {str(threads)}
    if "OMP_NUM_THREADS" not in environ:
        assert set(told) == ALL - environ.keys()


@pytest.mark.parametrize(
    ("library", "threads"),
    [
        ("numpy", "(numpy.ones((600, 600)) @ numpy.ones((600, 600)), len(os.listdir('/proc/self/task')))[1]"),
        ("pyarrow", "pyarrow.cpu_count()"),
    ],
)
def test_libraries_obey(library: str, threads: str) -> None:
    """NumPy multiplies in the thread it is called in, and Arrow counts one processor."""
    pytest.importorskip(library)
    mine = {name: value for name, value in os.environ.items() if name not in ALL}
    said = subprocess.run(
        [sys.executable, "-c", f"import os, {library}; print({threads})"],
        env={**mine, **thread_limits(1, {})},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert said.stdout.strip() == "1"
