"""Backends that keep the sessions: the contract, and one module for each."""
