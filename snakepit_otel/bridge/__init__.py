"""The wire between an authority, its workers and its callers."""
