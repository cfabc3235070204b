"""Files, sockets, streams and processes of the operating system."""
