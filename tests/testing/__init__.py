"""Tests of the kit for users' tests."""
