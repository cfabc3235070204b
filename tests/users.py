"""Other users of the machine: what only root can play in a test."""

from __future__ import annotations

import os

import pytest

OTHER = 54_322
"""A user that the machine need not know, who is neither this one nor root."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what belongs to another user")
