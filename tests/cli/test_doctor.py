"""`snakepit-otel doctor`: packages, settings, machine, adapters and variables."""

from __future__ import annotations

import ast
import json
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
import pytest
import wrapt
from typer.testing import CliRunner

from snakepit_otel.cli.app import app
from snakepit_otel.cli.doctor import packages
from snakepit_otel.cli.doctor.environment import OTHERS, check_environment, known_variables
from snakepit_otel.cli.doctor.telemetry import _evidence
from snakepit_otel.common.secrets import learn, masked_url
from snakepit_otel.telemetry.environment.display import header_names
from snakepit_otel.zero_copy import _memory as memory
from tests.processes import ROOT, alive, run

Check = dict[str, Any]
Examine = Callable[..., dict[str, Check]]


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch, short_path: Path) -> Examine:
    """Run the doctor in a folder and an environment of its own; return its checks by topic, the worst of each."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_path))
    monkeypatch.chdir(short_path)

    def examine(*arguments: str, **environ: str) -> dict[str, Check]:
        with monkeypatch.context() as here:
            for name, value in environ.items():
                here.setenv(name, value)
            result = CliRunner().invoke(app, ["doctor", "--json", *arguments])
        report = json.loads(result.stdout)
        assert result.exit_code == (0 if report["ok"] else 1), result.output
        order = ["problem", "warning", "ok"]
        worst_last = sorted(report["checks"], key=lambda check: -order.index(check["status"]))
        for check in report["checks"]:
            assert check["status"] == "ok" or check["remedy"] or "did you mean" in check["message"], check
        return {check["topic"]: check for check in worst_last}

    return examine


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Look at these variables only; return the checks by topic, the worst of each."""

    def look(**environ: str) -> dict[str, Check]:
        order = ["ok", "warning", "problem"]
        checks = sorted(check_environment(environ), key=lambda check: order.index(check.status))
        assert not any("hidden" in check.message + check.remedy + check.evidence for check in checks)
        return {check.topic: check.as_dict() for check in checks}

    return look


def test_all_is_well(examine: Examine, short_path: Path) -> None:
    """Where all is well every check says so, and nothing is left behind."""
    found = examine()
    assert {check["status"] for check in found.values()} == {"ok"}
    assert found["grpcio"]["message"] == f"{grpc.__version__}, required >=1.85,<2"
    assert found["settings"]["message"] == "the defaults"
    assert "mode 0700" in found["socket for callers"]["message"]
    assert list(short_path.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "wanted", "fine"),
    [
        ("1.85.1", ">=1.85,<2", True),
        ("1.84.9", ">=1.85,<2", False),
        ("2.0", ">=1.85,<2", False),
        ("2", ">=2.0", True),
        ("0.66b2", ">=0.66", True),
        ("3", "", True),
    ],
)
def test_ranges(version: str, wanted: str, fine: bool) -> None:
    """A version is in a range, or it is not."""
    assert packages.satisfies(version, wanted) is fine


def test_every_requirement_is_understood() -> None:
    """What pyproject.toml asks for is read from the installed metadata, bound for bound."""
    lines = [line for line in metadata.requires("snakepit-otel") or [] if "extra" not in line]
    read = packages.requirements()
    assert len(read) == len(lines)
    for line in lines:
        name = re.match(r"[\w-]+", line)
        assert name
        assert sorted(read[name[0]].split(",")) == sorted(line[len(name[0]) :].split(","))
        assert len(packages._BOUND.findall(read[name[0]])) == line.count(",") + 1


def test_packages_that_will_not_do() -> None:
    """A package that is missing, or outside of the range, is a problem with the command to run."""
    assert packages.check_version("wrapt", ">=99").remedy == "pip install 'wrapt>=99'"
    assert packages.check_version("nonesuch", ">=1").message == "not installed; >=1 is needed"


async def test_wrapt_without_its_extension() -> None:
    """wrapt in plain Python works, and costs; it is a warning, and the exit code stays 0."""
    environ = {"WRAPT_DISABLE_EXTENSIONS": "1", "COLUMNS": "200"}
    code, output, complaints = await run("doctor", environ=environ)
    assert (code, complaints) == (0, "")
    assert re.search(r"warning +wrapt's C extension +not in use", output)
    assert "do: unset WRAPT_DISABLE_EXTENSIONS" in output
    assert "no problems, 1 warning\n" in output


def test_grpc_that_is_instrumented_by_others(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another instrumentation of gRPC that is active is pointed out, with the variable that keeps it out."""
    monkeypatch.setattr(grpc.aio, "server", wrapt.FunctionWrapper(grpc.aio.server, lambda call, _, a, k: call(*a, **k)))
    found = examine()["gRPC instrumentation"]
    assert found["code"] == "instrumented_twice"
    assert "grpc.aio.server" in found["message"]


def test_settings_that_are_wrong(examine: Examine, short_path: Path) -> None:
    """Each bad setting of file and environment is a problem of its own, with its place."""
    (short_path / "snakepit.toml").write_text("[pool]\nsiez = 2\n")
    for arguments in ((), ("--config", "snakepit.toml")):
        found = examine(*arguments)["settings"]
        assert found["message"] == "snakepit.toml:2: pool.siez: unknown setting; did you mean 'size'?"
    (short_path / "snakepit.toml").write_text("[pool]\nsize = 2\n")
    assert examine()["settings"]["message"] == "snakepit.toml: pool.size=2"
    assert "SNAKEPIT_OTEL_POOL__SIZE: input" in examine(SNAKEPIT_OTEL_POOL__SIZE="none")["settings"]["message"]
    assert examine(SNAKEPIT_OTEL_POOL="{")["settings"]["code"] == "bad_setting"
    (short_path / "snakepit.toml").unlink()
    assert examine(SNAKEPIT_OTEL_POOL__SIZE="3")["settings"]["settings"] == {"pool.size": "3"}
    tls = {f"SNAKEPIT_OTEL_SERVER__TLS__{name}": str(short_path / "no.pem") for name in ("CERTIFICATE", "KEY")}
    assert "no.pem: No such file" in examine(**tls)["TLS for callers"]["message"]


def test_sockets_that_cannot_be_made(examine: Examine, short_path: Path) -> None:
    """A directory that others may enter, a path that is too long, and a place without room are told apart."""
    (short_path / "open").mkdir(mode=0o755)
    found = examine(SNAKEPIT_OTEL_SERVER__SOCKET=str(short_path / "open" / "a.sock"))["socket for callers"]
    assert "may be entered by others" in found["message"]
    found = examine(SNAKEPIT_OTEL_SERVER__SOCKET=str(short_path / ("x" * 100) / "a.sock"))["socket for callers"]
    assert "path too long" in found["message"]
    assert not (short_path / ("x" * 100)).exists()
    found = examine(SNAKEPIT_OTEL_SERVER__SOCKET="/proc/none/a.sock")["socket for callers"]
    assert "cannot make /proc/none" in found["message"]


def test_shared_memory(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without sealed memfds is told apart from one with too few descriptors; both go with what is set."""
    few = {"SNAKEPIT_OTEL_ZERO_COPY__MAX_HOST_REFERENCES": "100000"}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    found = examine(**few)["shared memory"]
    assert (found["status"], found["code"]) == ("warning", "few_descriptors")
    assert "1024 descriptors allow for 512 references at a time, fewer than the 100000 set" in found["message"]
    monkeypatch.setattr(memory, "can_share", lambda: False)
    found = examine()["shared memory"]
    assert (found["status"], found["code"]) == ("warning", "no_shared_memory")
    found = examine(SNAKEPIT_OTEL_ZERO_COPY__ALLOW_FALLBACK="false")["shared memory"]
    assert (found["status"], found["code"]) == ("problem", "no_shared_memory")
    found = examine(SNAKEPIT_OTEL_ZERO_COPY__ENABLED="false")["shared memory"]
    assert (found["status"], found["message"]) == (
        "ok",
        "switched off by zero_copy.enabled: bytes are copied over gRPC",
    )


def test_ports(examine: Examine) -> None:
    """A port is free, or has a listener, or may not be listened on without TLS."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        assert examine("--listen", place)[f"listen on {place}"]["code"] == "cannot_listen"
    assert examine("--listen", place)[f"listen on {place}"]["message"] == "free"
    assert examine("--listen", "0.0.0.0:0")["listen on 0.0.0.0:0"]["code"] == "insecure"
    assert examine("--listen", "nowhere")["listen on nowhere"]["code"] == "bad_address"
    assert examine("--listen", "nobody.invalid:1")["listen on nobody.invalid:1"]["code"] == "bad_address"


def test_adapter_that_can_be_served(examine: Examine, short_path: Path) -> None:
    """The tools are listed; what the module prints does not get into the report."""
    (short_path / "shop.py").write_text(
        "from snakepit_otel import BaseAdapter, tool\nprint('hello')\nclass Shop(BaseAdapter):\n"
        "    @tool\n    def buy(self, what: str) -> str:\n        return what\n"
        "class Anything:\n    def execute_tool(self, tool_name, args, context):\n        return 1\n"
    )
    assert examine("--adapter", "shop:Shop")["adapter shop:Shop"]["tools"] == ["buy"]
    assert "1 tool: buy" in examine("--adapter", "shop.py:Shop")["adapter shop.py:Shop"]["message"]
    assert "whatever execute_tool takes" in examine("--adapter", "shop:Anything")["adapter shop:Anything"]["message"]


@pytest.mark.parametrize(
    ("source", "spec", "code", "words"),
    [
        ("import os\n\n1 / 0\n", "mine:A", "import_failed", ("ZeroDivisionError", "mine.py, line 3: 1 / 0")),
        ("def (\n", "mine.py:A", "import_failed", ("SyntaxError", "mine.py, line 1: def (")),
        ("import json\njson.loads('{')\n", "mine:A", "import_failed", ("line 2: json.loads",)),
        ("import nonesuch.part\n", "mine:A", "missing_package", ("'nonesuch'", "line 1: import nonesuch.part")),
        ("from json import nonesuch\n", "mine:A", "import_failed", ("cannot import name 'nonesuch'", "line 1")),
        ("class Adaptor: pass\n", "mine:Adapter", "missing_class", ("did you mean 'Adaptor'?",)),
        ("A = 1\n", "mine:A", "not_a_class", ("is a int, not a class",)),
        ("class A: pass\n", "mine:A", "no_tools", ("has no tools", "@tool")),
        (
            "from snakepit_otel import tool\nclass A:\n    @tool\n    def cleanup(self): ...\n",
            "mine:A",
            "refused",
            ("cleanup",),
        ),
        ("import sys\nsys.exit('bye')\n", "mine:A", "import_failed", ("SystemExit: bye", "line 2")),
        ("import os\nos._exit(7)\n", "mine:A", "import_died", ("exited with status 7",)),
        ("", "other.mine:A", "missing_module", ("No module named 'other'",)),
        ("", "other.py:A", "missing_file", ("no file other.py",)),
        ("", "mine", "bad_name", ("package.module:Class",)),
    ],
)
def test_adapters_that_cannot_be_served(
    examine: Examine, short_path: Path, source: str, spec: str, code: str, words: tuple[str, ...]
) -> None:
    """Each reason has its diagnosis, and names the line in the user's own file."""
    (short_path / "mine.py").write_text(source)
    found = examine("--adapter", spec)[f"adapter {spec}"]
    assert found["code"] == code, found
    for word in words:
        assert word in f"{found['message']} {found.get('evidence', '')} {found['remedy']}"


def test_adapters_of_all_pools(examine: Examine, short_path: Path) -> None:
    """Each pool's adapter is looked at, once where pools share it, with the shortest of their times."""
    (short_path / "shop.py").write_text(
        "from snakepit_otel import tool\nclass Shop:\n    @tool\n    def buy(self) -> None: ...\n"
    )
    (short_path / "slow.py").write_text("import threading\nthreading.Event().wait()\n")
    (short_path / "snakepit.toml").write_text(
        'adapter = "shop:Shop"\n[pools.second]\nadapter = "shop:Shop"\n[pools.gone]\nadapter = "nowhere:A"\n'
        '[pools.patient]\nadapter = "slow:A"\n[pools.slow]\nadapter = "slow:A"\nstartup_timeout = 1000\n'
    )
    found = {topic: check for topic, check in examine().items() if topic.startswith("adapter ")}
    assert {topic: check.get("code") for topic, check in found.items()} == {
        "adapter shop:Shop": None,
        "adapter nowhere:A": "missing_module",
        "adapter slow:A": "slow_import",
    }
    assert "more than 1 s" in found["adapter slow:A"]["message"]


def test_adapter_that_never_finishes_its_import(examine: Examine, short_path: Path) -> None:
    """An import that hangs is ended with all it has started, after the time that workers get."""
    (short_path / "mine.py").write_text(
        "import pathlib, subprocess, threading\nchild = subprocess.Popen(['sleep', '60'])\n"
        "pathlib.Path('pid').write_text(str(child.pid))\nthreading.Event().wait()\n"
    )
    # A busy machine takes longer to come to the hanging line.
    for milliseconds in ("1000", "5000", "30000"):
        found = examine("--adapter", "mine:A", SNAKEPIT_OTEL_POOL__STARTUP_TIMEOUT=milliseconds)["adapter mine:A"]
        assert found["code"] == "slow_import"
        if (short_path / "pid").exists():
            break
    assert not alive(int((short_path / "pid").read_text()))


def test_variables_are_explained(variables: Examine) -> None:
    """What is set is shown with its meaning, and without secrets."""
    found = variables(
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20hidden,x-key=hidden",
        OTEL_EXPORTER_OTLP_ENDPOINT="https://user:hidden@otel.example:4318/?key=hidden",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_RESOURCE_ATTRIBUTES="token=hidden",
        OTEL_SERVICE_NAME="shop",
        SNAKEPIT_LOG_LEVEL="",
        SNAKEPIT_OTEL_SERVER__TLS__CERTIFICATE="/server.pem",
        SNAKEPIT_OTEL_POOLS__GPU__SIZE="2",
        SNAKEPIT_OTEL_POOL__ENVIRONMENT__API_KEY="hidden",
        SNAKEPIT_OTEL_SERVICE_HOST="10.0.0.1",
    )
    assert {check["status"] for check in found.values()} == {"ok"}
    assert "authorization=***, x-key=***" in found["OTEL_EXPORTER_OTLP_HEADERS"]["message"]
    assert "https://***@otel.example:4318/?***" in found["OTEL_EXPORTER_OTLP_ENDPOINT"]["message"]
    assert found["OTEL_SERVICE_NAME"]["message"] == "shop - the service's name"
    assert "counts as not set" in found["SNAKEPIT_LOG_LEVEL"]["message"]
    assert "server.tls.certificate" in found["SNAKEPIT_OTEL_SERVER__TLS__CERTIFICATE"]["message"]
    assert found["SNAKEPIT_OTEL_POOLS__GPU__SIZE"]["message"] == "2 - the setting pools.gpu.size"
    assert "Kubernetes" in found["SNAKEPIT_OTEL_SERVICE_HOST"]["message"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPIONT", "did you mean OTEL_EXPORTER_OTLP_ENDPOINT?"),
        ("OTEL_TRACE_EXPORTER", "did you mean OTEL_TRACES_EXPORTER?"),
        ("SNAKEPIT_OTEL_SESION_STORE__MAX_SESSIONS", "did you mean SNAKEPIT_OTEL_SESSION_STORE__MAX_SESSIONS?"),
        ("SNAKEPIT_OTEL_POOL_SIZE", "did you mean SNAKEPIT_OTEL_POOL__SIZE?"),
        ("SNAKEPIT_SOMETHING_ELSE_ENTIRELY", "is not read by snakepit_otel"),
        ("OTEL_JAVAAGENT_ENABLED", "is for another language"),
        ("OTEL_WHATEVER_THAT_MAY_BE", "is not read"),
    ],
)
def test_names_that_nobody_reads(variables: Examine, name: str, words: str) -> None:
    """A misspelt name is pointed out with the nearest one that means something; its value is not shown."""
    found = variables(**{name: "hidden"})[name]
    assert found["status"] == "warning"
    assert words in found["message"]


@pytest.mark.parametrize(
    ("environ", "topic", "code"),
    [
        ({"ENDPOINT": "h:4318", "PROTOCOL": "http/protobuf"}, "ENDPOINT", "no_scheme"),
        ({"ENDPOINT": "http://h:4317", "PROTOCOL": "http"}, "PROTOCOL", "bad_protocol"),
        ({"ENDPOINT": "http://h:4317", "COMPRESSION": "deflate"}, "COMPRESSION", "bad_compression"),
        ({"ENDPOINT": "http://h:99999"}, "ENDPOINT", "bad_endpoint"),
        ({"OTEL_CONFIG_FILE": "sdk.yaml"}, "OTEL_CONFIG_FILE", "not_honoured"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER", "unknown_exporter"),
        ({"ENDPOINT": "http://h:4317", "TIMEOUT": "10000"}, "TIMEOUT", "timeout_in_milliseconds"),
        ({"ENDPOINT": "http://h:4317", "TIMEOUT": "10s"}, "TIMEOUT", "bad_timeout"),
        ({"ENDPOINT": "https://h:4317", "CERTIFICATE": "/no.pem"}, "CERTIFICATE", "missing_file"),
        ({"ENDPOINT": "https://h:4317", "CERTIFICATE": __file__}, "CERTIFICATE", "bad_certificate_file"),
        ({"ENDPOINT": "http://h:4317", "HEADERS": "a=hidden,hidden"}, "HEADERS", "bad_header"),
        ({"OTEL_SDK_DISABLED": "1"}, "OTEL_SDK_DISABLED", "bad_value"),
        ({"SNAKEPIT_TELEMETRY_LEVEL": "most"}, "SNAKEPIT_TELEMETRY_LEVEL", "bad_value"),
    ],
)
def test_wrong_values(variables: Examine, environ: dict[str, str], topic: str, code: str) -> None:
    """Values that are wrong, or mean something else in Python, are pointed out, with a remedy."""

    def full(name: str) -> str:
        return name if name.startswith(("OTEL_", "SNAKEPIT_", "HTTP")) else f"OTEL_EXPORTER_OTLP_{name}"

    found = variables(**{full(name): value for name, value in environ.items()})
    assert found[full(topic)]["code"] == code
    assert found[full(topic)]["remedy"]


def test_every_variable_that_the_code_reads_is_known() -> None:
    """A variable that any module reads from the environment is explained."""
    names = {
        node.value
        for path in (ROOT / "snakepit_otel").rglob("*.py")
        if "doctor" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and re.fullmatch(r"(SNAKEPIT|OTEL)_[A-Z_]*[A-Z]", str(node.value))
    }
    assert "SNAKEPIT_LOG_LEVEL" in names
    assert names - {"OTEL_BSP", "OTEL_BLRP"} <= {*known_variables()}


def test_variables_of_the_sdk_are_known() -> None:
    """Nothing that the installed SDK reads is called misspelt."""
    from opentelemetry.sdk import environment_variables

    theirs = {value for name, value in vars(environment_variables).items() if "OTEL_" in name}
    assert [name for name in sorted(theirs) if name not in known_variables() and not OTHERS.fullmatch(name)] == []


def test_masking() -> None:
    """Secrets of headers, endpoints and proxies, whole, decoded and in parts, are masked in what peers answer."""
    learn(
        {
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "authorization=Basic%20dXNlcjpwYXNzdzByZA==,k=v",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://me:s3same@h/?api_key=k3yk3y",
            "https_proxy": "http://me:pr0xypass@p:1",
        }
    )
    text = _evidence("user:passw0rd dXNlcjpwYXNzdzByZA== s3same k3yk3y pr0xypass\x1b[31m\nhttp://a:b@c d")
    assert text == "*** *** *** *** *** [31m http://***@c d"
    assert len(_evidence("x" * 1000)) == 301
    assert masked_url("a:b@h:1") == "***@h:1"
    assert masked_url("http://h:1/p") == "http://h:1/p"
    assert header_names("A=1, b = 2,secret, not a name=3") == ["a", "b", "***"]


def test_child_says_nothing_but_json() -> None:
    """The process that imports adapters is usable by itself."""
    command = [sys.executable, "-m", "snakepit_otel.cli.doctor.adapter_child", "tests.adapters_for_tests:NoTools"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert json.loads(done.stdout)["code"] == "no_tools"


def test_every_diagnosis_is_documented_and_tested() -> None:
    """Each code that the doctor can give for telemetry is in docs/doctor.md, and in a test."""
    folder = ROOT / "snakepit_otel" / "cli" / "doctor"
    codes: set[str] = set()
    for name in ("hints", "telemetry"):
        for node in ast.walk(ast.parse((folder / f"{name}.py").read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = {"Hint": node.args[:1], "problem": node.args[3:4], "warning": node.args[3:4]}
                codes |= {word.value for word in place.get(node.func.id, []) if isinstance(word, ast.Constant)}
    assert len(codes) > 25
    page = (ROOT / "docs" / "doctor.md").read_text()
    tests = (ROOT / "tests" / "cli" / "test_doctor_telemetry.py").read_text()
    assert {code for code in codes if f"`{code}`" not in page} == set()
    assert {code for code in codes if f'"{code}"' not in tests} == set()
