"""Spans that cost little, for a provider that is OpenTelemetry's own SDK."""
