"""The package that upstream's workers and adapters import."""

__version__ = "2.0.0"
