"""Servers of session stores, for tests, on loopback with ports and directories of their own."""
