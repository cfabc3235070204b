"""The version of the instrumentation."""

__version__ = "0.1.0"
