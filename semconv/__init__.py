"""The registry of every name, and what is generated from it."""
