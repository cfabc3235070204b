"""What Elixir's Snakepit is given to start: a script of the name that it knows its workers by."""

from pathlib import Path

SCRIPT = Path(__file__).with_name("grpc_server.py")
"""`grpc_server.py`. Alone in its directory, which is the worker's, and which Python would import from."""
