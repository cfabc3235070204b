"""The way of telemetry out of the process: bounded queues, deadlines, and an account of what became of it."""
