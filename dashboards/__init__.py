"""Dashboards, recording rules and alerts, made from the registry; `python -m dashboards` writes the files."""
