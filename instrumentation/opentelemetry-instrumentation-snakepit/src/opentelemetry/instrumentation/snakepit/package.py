"""Instrumented packages, for OpenTelemetry's loader."""

# Upstream's workers run out of the folder of an Elixir dependency: no distribution has a version to ask for.
_instruments: tuple[str, ...] = ()

_supports_metrics = True
