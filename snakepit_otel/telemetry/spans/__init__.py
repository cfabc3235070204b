"""How spans are made: by OpenTelemetry's API, or by a leaner way to the same result."""
