"""Echo and a counter for each session on every peer that benchmarks/peers.py measures, a process each."""
