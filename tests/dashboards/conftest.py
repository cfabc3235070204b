"""Fixtures for all tests of the dashboards."""

from __future__ import annotations

import warnings

# Importing the library warns of its own older half, of which it makes the newer one.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import dashboards.build  # noqa: F401
