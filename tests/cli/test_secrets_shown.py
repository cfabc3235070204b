"""Secrets stay where they were given: none is in what is printed, logged or exported."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.processes import program, run
from tests.waiting import until

SECRETS = {
    "header": "h3ader-s3cret-1",
    "endpoint user": "us3r-s3cret-2",
    "endpoint password": "passw0rd-s3cret-3",
    "endpoint query": "qu3ry-s3cret-4",
    "proxy": "pr0xy-s3cret-5",
    "environment": "envir0nment-s3cret-6",
    "pool key": "p00l-s3cret-7",
    "pool URL": "dbpassw0rd-s3cret-8",
    "signature": "sas-s3cret-9",
    "plain": "plain-s3cret-10",
}


class Echoing(ThreadingHTTPServer):
    """A collector that refuses everything, and repeats in its answers what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Echoing)
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        words = f"no {self.path} {self.headers['authorization']}"
        self.send_response(400, words)
        self.end_headers()
        self.wfile.write(words.encode())

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def collector() -> Iterator[Echoing]:
    with Echoing() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_no_secret_is_shown(collector: Echoing, short_path: Path) -> None:
    """With secrets in every place there is for them, and all that fails failing, at the level of debugging."""
    port = collector.server_address[1]
    config = short_path / "s.toml"
    config.write_text(
        'adapter = "tests.cli.leaking_adapter:Leaking"\n[pool]\nsize = 1\n[pool.environment]\n'
        f'LEAK_API_KEY = "{SECRETS["pool key"]}"\nLEAK_DB_PASSWORD = "{SECRETS["pool URL"]}"\n'
        f'LEAK_SAS = "{SECRETS["signature"]}"\nLEAK_PLAIN = "{SECRETS["plain"]}"\n'
    )
    endpoint = (
        f"http://{SECRETS['endpoint user']}:{SECRETS['endpoint password']}@127.0.0.1:{port}"
        f"/v1/any?sig={SECRETS['endpoint query']}"
    )
    environ = {
        "XDG_RUNTIME_DIR": str(short_path),
        "SNAKEPIT_OTEL_CONFIG": str(config),
        "SNAKEPIT_LOG_LEVEL": "debug",
        "OTEL_LOG_LEVEL": "debug",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        **{f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT": endpoint for signal in ("TRACES", "METRICS", "LOGS")},
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{SECRETS['header']}",
        "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "otel,process",
        "OTEL_METRIC_EXPORT_INTERVAL": "300",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "HTTPS_PROXY": f"http://me:{SECRETS['proxy']}@127.0.0.1:9",
        "MY_TOKEN": SECRETS["environment"],
    }
    # What one of the SDK's detectors makes an attribute of.
    arguments = ["serve", "--config", str(config)]
    shown: dict[str, str] = {}
    async with program("-m", "snakepit_otel", *arguments, environ=environ) as server:
        await server.says("serving")
        for command in (
            ["call", "leak"],
            ["config", "show"],
            ["config", "show", "--json"],
            ["status", "--json"],
            ["telemetry"],
            ["doctor", "--timeout", "2"],
        ):
            _, output, complaints = await run(*command, environ=environ)
            shown[" ".join(command)] = output + complaints
        await until(lambda: len(collector.bodies) > 5)
        server.process.terminate()
        assert server.process.stderr is not None
        shown["log"] = "".join(server.lines) + (await server.process.stderr.read()).decode()
    shown["telemetry"] = b"".join(collector.bodies).decode(errors="replace")
    found = [(where, name) for where, text in shown.items() for name, secret in SECRETS.items() if secret in text]
    assert found == []
    assert "ConnectionError: https://***@db/shop?sig=***" in shown["call leak"]
    assert "connecting to https://***@db/shop?sig=*** with ***" in shown["log"]
    assert "connecting to https://***@db/shop?sig=*** with ***" in shown["telemetry"]
    assert "LEAK_PLAIN" in shown["config show"]


RAISES = """
import sys, typer
from snakepit_otel.cli import app

@app.app.command()
def breaks() -> None:
    raise RuntimeError("cannot reach http://me:s3cr3t@host")

sys.argv = ["snakepit-otel", "breaks"]
app.main()
"""


async def test_tracebacks_have_no_secrets() -> None:
    """A mistake of ours is a traceback as the interpreter prints it, with masks."""
    async with program("-c", RAISES) as started:
        _, printed = await started.process.communicate()
    assert b"RuntimeError: cannot reach http://***@host" in printed
    assert b"Traceback" in printed
    assert started.process.returncode == 1
