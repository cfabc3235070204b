"""Script for Elixir's Snakepit to start as a worker, with the file name that Snakepit expects."""

from pathlib import Path

# Alone in its directory, which becomes the worker's current one, and from which Python would import.
SCRIPT = Path(__file__).with_name("grpc_server.py")
