"""docs/middleware.md: the example that its test is of."""

import pytest

from examples.token_check import TokenCheck

__all__ = ["TokenCheck", "pytest"]
