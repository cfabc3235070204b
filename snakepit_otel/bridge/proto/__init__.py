"""The wire, as protobuf: definitions and the code generated from them by scripts/generate-stubs."""
