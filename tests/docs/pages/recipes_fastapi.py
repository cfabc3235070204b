"""docs/recipes/fastapi.md: an application for its handlers."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from snakepit_otel.errors import SnakepitError, ToolError

__all__ = ["JSONResponse", "Request", "SnakepitError", "ToolError"]

app = FastAPI()
