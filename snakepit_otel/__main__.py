"""`python -m snakepit_otel` is `snakepit-otel`."""

from snakepit_otel.cli import main

main()
