"""Limits on the threads that numeric libraries use in a worker."""

from __future__ import annotations

from collections.abc import Mapping

_OPENMP = "OMP_NUM_THREADS"

# Libraries that follow OpenMP's variable unless their own is set; PyTorch, scikit-learn and Arrow have only OpenMP's.
_FOLLOW_OPENMP = (
    "OPENBLAS_NUM_THREADS",  # the BLAS of NumPy's and SciPy's wheels
    "MKL_NUM_THREADS",  # that of Anaconda's, and PyTorch's
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",  # pandas' eval
)

_OWN = (
    "NUMBA_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "RAYON_NUM_THREADS",  # most libraries that are written in Rust, such as tokenizers
)


def thread_limits(threads: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that have numeric libraries use so many threads; none for 0.

    With one worker for each core, libraries that each take all cores would stand in each other's way. What `environ`
    has already stays as it is; and if it has OpenMP's variable, so do the libraries that go by that.
    """
    if not threads:
        return {}
    names = _OWN if _OPENMP in environ else (_OPENMP, *_FOLLOW_OPENMP, *_OWN)
    return {name: str(threads) for name in names if name not in environ}
