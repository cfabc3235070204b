"""Formats of data in shared memory: one module for each."""
