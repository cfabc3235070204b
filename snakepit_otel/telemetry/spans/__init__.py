"""Span makers: one contract, and one module or folder for each."""
