"""Rules by which requests wait for workers and get them."""
