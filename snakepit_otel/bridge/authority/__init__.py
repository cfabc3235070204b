"""The authority's side of the bridge."""
