"""The worker's side of the bridge."""
