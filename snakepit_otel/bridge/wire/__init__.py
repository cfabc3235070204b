"""Values, errors and messages as they travel, the same on every side."""
