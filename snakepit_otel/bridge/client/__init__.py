"""The caller's side of the bridge."""
