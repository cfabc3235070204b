"""The tree of settings: where they come from, which wins, and how those that cannot be are refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit_otel.errors import ConfigurationError
from snakepit_otel.pool.settings import PoolSettings, Profile
from snakepit_otel.settings import Settings, load_settings
from snakepit_otel.settings._environment import setting_of, variables
from snakepit_otel.settings._loading import load
from snakepit_otel.settings._tree import further_pools

Complaints = Callable[..., list[str]]
GPU = {"adapter": "shop:Gpu"}


@pytest.fixture
def complaints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Complaints:
    """Load settings of a file and an environment; return the lines of the complaint."""
    monkeypatch.chdir(tmp_path)

    def complaints(text: str = "", values: dict[str, Any] | None = None, **environ: str) -> list[str]:
        Path("snakepit.toml").write_text(text)
        full = {f"SNAKEPIT_OTEL_{name}": value for name, value in environ.items()}
        with pytest.raises(ConfigurationError) as caught:
            load_settings(None, values, full)
        return str(caught.value).splitlines()

    return complaints


def test_the_program_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    """Each setting is taken from the first source that has it, and says which that was."""
    file = tmp_path / "a.toml"
    file.write_text("[pool]\nsize = 1\nspares = 1\nqueue_timeout = 1\n")
    environ = {"SNAKEPIT_OTEL_POOL__SIZE": "2", "SNAKEPIT_OTEL_POOL__SPARES": "2"}
    loaded = load(file, {"pool": {"size": 3}}, environ)
    pool = loaded.settings.pool
    assert (pool.size, pool.spares, pool.queue_timeout, pool.max_retries) == (3, 2, 1, 3)
    places = [loaded.locations.get(("pool", name)) for name in ("size", "spares", "queue_timeout", "max_retries")]
    assert places == ["", "SNAKEPIT_OTEL_POOL__SPARES", f"{file}:4", None]


def test_which_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that is named is read; or that of SNAKEPIT_OTEL_CONFIG; or ./snakepit.toml, if there is one."""
    monkeypatch.chdir(tmp_path)
    assert load(environ={}).file is None
    for size, name in enumerate(["snakepit.toml", "variable.toml", "named.toml"], 1):
        Path(name).write_text(f"pool.size = {size}")
    environ = {"SNAKEPIT_OTEL_CONFIG": "variable.toml"}
    assert load_settings(environ={}).pool.size == 1
    assert load_settings(environ=environ).pool.size == 2
    assert load_settings(Path("named.toml"), environ=environ).pool.size == 3


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is named must be there, and must be TOML; the line at fault is said."""
    file = tmp_path / "a.toml"
    for contents, said in [
        (None, f"{file}: No such file"),
        (b"[pool]\nnonsense\n", f"{file}:2: this is not TOML: "),
        (b"a = '\xff'", f"{file}: this is not TOML: "),
        (b"a = 1\r\nb = '''\r'''", f"{file}:2: this is not TOML: "),
        (b"a = " + 5_000 * b"[", f"{file}: this is not TOML that can be read: "),
    ]:
        if contents is not None:
            file.write_bytes(contents)
        with pytest.raises(ConfigurationError) as caught:
            load_settings(file, environ={})
        assert str(caught.value).startswith(said)


def test_everything_wrong_is_said_at_once_with_its_place(complaints: Complaints) -> None:
    """File, environment and program: each mistake has a line, even one that another source lays something over."""
    text = '# settings\n[pool]\nsize = "x"\nsise = 4\n\n[sesion_store]\n'
    found = complaints(text, {"pool": {"spares": -1}}, POOL__SIZE="two", POOL__SISE="3", POL__SIZE="3")
    assert found == [
        "snakepit.toml:3: pool.size: input should be a valid integer, unable to parse string as an integer (got 'x')",
        "snakepit.toml:4: pool.sise: unknown setting; did you mean 'size'?",
        "snakepit.toml:6: sesion_store: unknown setting; did you mean 'session_store'?",
        "SNAKEPIT_OTEL_POL__SIZE: unknown setting; did you mean SNAKEPIT_OTEL_POOL__SIZE (pool.size)?",
        "SNAKEPIT_OTEL_POOL__SISE: unknown setting; did you mean SNAKEPIT_OTEL_POOL__SIZE (pool.size)?",
        "SNAKEPIT_OTEL_POOL__SIZE: input should be a valid integer, unable to parse string as an integer (got 'two')",
        "pool.spares: input should be greater than or equal to 0 (got -1)",
    ]


def test_environment_is_complained_of_beside_a_file_that_is_no_toml(complaints: Complaints) -> None:
    """That the file cannot be read does not hide what is wrong elsewhere, and nothing is called missing for it."""
    found = complaints("[pool", POOL__SIZE="0", POOLS__GPU__SIZE="2")
    assert [line.partition(": ")[0] for line in found] == ["snakepit.toml:1", "SNAKEPIT_OTEL_POOL__SIZE"]


def test_what_is_wrong_only_in_the_whole_has_the_place_of_its_setting(complaints: Complaints) -> None:
    """Settings that do not go together are told of where the one to change was given."""
    said = "is for profile = 'thread'; in a 'process' worker it is always one"
    text = "[pool]\nthreads_per_worker = 4\n"
    assert complaints(text, POOL__PROFILE="process") == [f"snakepit.toml:2: pool.threads_per_worker: {said}"]
    assert complaints(POOL__THREADS_PER_WORKER="4") == [f"SNAKEPIT_OTEL_POOL__THREADS_PER_WORKER: {said}"]
    assert complaints("", {"pool": {"threads_per_worker": 4}}) == [f"pool.threads_per_worker: {said}"]
    found = complaints(f"{text}sise = 1")
    assert [line.partition(": ")[0] for line in found] == ["snakepit.toml:3", "snakepit.toml:2"]


def test_sources_may_complete_each_other(tmp_path: Path) -> None:
    """What is missing, or does not fit, in one source is no mistake if another makes it good."""
    file = tmp_path / "a.toml"
    file.write_text('[pool]\nthreads_per_worker = 4\n[pools.gpu]\nsize = 2\n[server.tls]\ncertificate = "c"\n')
    environ = {
        "SNAKEPIT_OTEL_POOL__PROFILE": "thread",
        "SNAKEPIT_OTEL_POOLS__GPU__ADAPTER": "shop:Gpu",
        "SNAKEPIT_OTEL_SERVER__TLS__KEY": "k",
    }
    settings = load_settings(file, environ=environ)
    assert settings.pool.concurrency == 4
    assert settings.pools["gpu"] == PoolSettings(adapter="shop:Gpu", size=2)
    assert settings.server.tls is not None


def test_what_is_missing_has_the_place_of_its_group(complaints: Complaints) -> None:
    """A pool without adapter and TLS without a key are told of where the group is."""
    found = complaints('[server.tls]\ncertificate = "c"\n[pools.gpu]\nsize = 2\n')
    assert found == [
        'snakepit.toml:3: pools.gpu: needs an adapter of its own: adapter = "package.module:Class"',
        "snakepit.toml:1: server.tls.key: is missing",
    ]


@pytest.mark.parametrize("name", ["Gpu", "1st", "", "a b", "a.b", "x" * 65, "default"])
def test_names_of_pools(complaints: Complaints, name: str) -> None:
    """A pool's name fits worker ids and telemetry, and is not that of `[pool]`."""
    (found,) = complaints(f'[pools."{name}"]\nadapter = "shop:Gpu"\n')
    assert found.startswith("snakepit.toml:1: pools.")
    with pytest.raises(ConfigurationError, match=r"^pools\."):
        further_pools({name: GPU})


def test_the_adapter_of_the_first_pool_has_one_place(complaints: Complaints) -> None:
    """`pool.adapter` is refused, and the top-level setting named."""
    (found,) = complaints('[pool]\nadapter = "shop:A"\n')
    assert found.startswith("snakepit.toml:2: pool.adapter: is for [pools.NAME]")


def test_pools_of_a_program() -> None:
    """A program gives pools as settings or as plain values; mistakes are named."""
    pools = further_pools({"gpu": {**GPU, "profile": "thread"}, "big-1": PoolSettings(adapter="shop:Big")})
    assert (pools["gpu"].profile, pools["big-1"].adapter) == (Profile.THREAD, "shop:Big")
    with pytest.raises(ConfigurationError, match=r"^pools\.gpu\.sise: unknown setting; did you mean 'size'"):
        further_pools({"gpu": {**GPU, "sise": 1}})
    with pytest.raises(ConfigurationError, match=r"^pools\.gpu: needs an adapter"):
        further_pools({"gpu": {}})


def test_groups_may_be_json_in_the_environment(complaints: Complaints) -> None:
    """A variable that names a group has a JSON object; one that names a setting in it wins over it."""
    environ = {"SNAKEPIT_OTEL_POOLS": '{"big-1": {"adapter": "a:A", "size": 2}}', "SNAKEPIT_OTEL_POOLS__GPU__SIZE": "3"}
    environ |= {"SNAKEPIT_OTEL_POOLS__GPU": '{"adapter": "b:B", "size": 2}'}
    loaded = load(None, None, environ)
    assert {name: pool.size for name, pool in loaded.settings.pools.items()} == {"big-1": 2, "gpu": 3}
    assert loaded.locations.get(("pools", "gpu", "adapter")) == "SNAKEPIT_OTEL_POOLS__GPU"
    assert complaints(POOL='{"size": 0, "sise": 1}') == [
        "SNAKEPIT_OTEL_POOL: sise: unknown setting; did you mean 'size'?",
        "SNAKEPIT_OTEL_POOL: size: input should be greater than or equal to 1 (got 0)",
    ]
    for text in ("{", "3", "[]", 9_000 * "["):
        assert complaints(POOL=text)[0].startswith("SNAKEPIT_OTEL_POOL: this names a group of settings")


def test_mistakes_in_a_group_are_not_hidden_by_a_variable_for_one_setting(complaints: Complaints) -> None:
    """What another variable lays over a mistake in JSON, or under which there is no group, is complained of."""
    assert complaints(POOL='{"size": "x"}', POOL__SIZE="3")[0].startswith("SNAKEPIT_OTEL_POOL: size: ")
    (found,) = complaints(POOLS='{"gpu": 3}', POOLS__GPU__ADAPTER="shop:Gpu")
    assert found == "SNAKEPIT_OTEL_POOLS: gpu: input should be a group of settings (got 3)"


def test_a_group_may_be_taken_back(tmp_path: Path) -> None:
    """A group that may be none is so where a source that wins says it, and that is its place."""
    file = tmp_path / "a.toml"
    file.write_text('[server.tls]\ncertificate = "c"\nkey = "k"\n')
    loaded = load(file, environ={"SNAKEPIT_OTEL_SERVER": '{"tls": null}'})
    assert loaded.settings.server.tls is None
    assert (loaded.locations.get(("server", "tls")), loaded.locations.get(("server",))) == (
        "SNAKEPIT_OTEL_SERVER",
        f"{file}:1",
    )


def test_a_file_may_be_a_pipe(tmp_path: Path) -> None:
    """What the shell gives for `<(…)` is read, once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("pool.size = 3",))
    writer.start()
    loaded = load(pipe, environ={})
    writer.join()
    assert (loaded.settings.pool.size, loaded.locations.get(("pool", "size"))) == (3, f"{pipe}:1")


def test_settings_of_a_program_are_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`Settings(…)` reads neither environment nor file."""
    monkeypatch.chdir(tmp_path)
    Path("snakepit.toml").write_text("pool.size = 7")
    monkeypatch.setenv("SNAKEPIT_OTEL_POOL__SIZE", "7")
    monkeypatch.setenv("POOL", '{"size": 7}')
    assert Settings(adapter="shop:A").model_dump() == {**Settings.model_construct().model_dump(), "adapter": "shop:A"}


@pytest.mark.parametrize("name", ["Pool", "_env_file", "self"])
def test_names_that_mean_something_to_the_library(complaints: Complaints, name: str) -> None:
    """Keys have one spelling, and none is an option of the library that reads them."""
    assert complaints(f"{name} = 1")[0].startswith(f"snakepit.toml:1: {name}: unknown setting; ")


def test_lists_in_the_environment(complaints: Complaints) -> None:
    """Lists are JSON, or names with commas between them."""
    for text in ("shop.a, shop.b", '["shop.a", "shop.b"]'):
        settings = load_settings(environ={"SNAKEPIT_OTEL_AUTHORITY_TOOLS": text})
        assert settings.authority_tools == ("shop.a", "shop.b")
    assert complaints(AUTHORITY_TOOLS="[1")[0].startswith("SNAKEPIT_OTEL_AUTHORITY_TOOLS: this is no JSON array")
    assert complaints(AUTHORITY_TOOLS="[1]") == [
        "SNAKEPIT_OTEL_AUTHORITY_TOOLS: 0: input should be a valid string (got 1)"
    ]


def test_variables_of_workers_keep_their_names() -> None:
    """What comes after `ENVIRONMENT__` is the worker's variable as it stands, underscores and all."""
    environ = {"SNAKEPIT_OTEL_POOL__ENVIRONMENT__My__Var": "1", "SNAKEPIT_OTEL_POOL__ENVIRONMENT__OMP_X": "2"}
    assert load_settings(environ=environ).pool.environment == {"My__Var": "1", "OMP_X": "2"}


def test_variables_that_set_nothing() -> None:
    """Empty variables, those for other purposes and what Kubernetes puts there are no settings."""
    environ = dict.fromkeys(["SNAKEPIT_OTEL_POOL__SIZE", "SNAKEPIT_OTEL_WHATEVER", "SNAKEPIT_OTEL_CONFIG"], " ")
    environ |= dict.fromkeys(["SNAKEPIT_OTEL_ADDRESS", "SNAKEPIT_OTEL_SERVICE_HOST", "SNAKEPIT_OTEL_PORT"], "x")
    environ |= dict.fromkeys(["SNAKEPIT_OTEL_PORT_50051_TCP_ADDR", "SNAKEPIT_OTEL_SERVICE_PORT_GRPC"], "x")
    assert load_settings(environ=environ) == Settings()


@pytest.mark.parametrize("name", ["pool__SIZE", "POOL__", "POOL__SIZE__X", "POOL____SIZE", "POOLS__GPU__NAME", "", "_"])
def test_variables_that_are_nearly_right(complaints: Complaints, name: str) -> None:
    """A variable whose name is not quite that of a setting is refused."""
    (found,) = complaints(**{name: "1"})
    assert found.startswith(f"SNAKEPIT_OTEL_{name}: unknown setting; ")


def test_secrets_are_not_in_complaints(complaints: Complaints) -> None:
    """What was to be in the environment of workers is not shown."""
    text = "[pool.environment]\nAPI_KEY = 12345\n"
    (found,) = complaints(text)
    assert found == "snakepit.toml:2: pool.environment.API_KEY: input should be a valid string (got ***)"
    assert "12345" not in str(complaints("[pool]\nenvironment = 12345"))
    assert "12345" not in str(complaints(POOL__ENVIRONMENT="KEY=12345"))


def test_a_list_replaces_a_list(complaints: Complaints) -> None:
    """A list of one source is not mixed with that of another, nor are their places."""
    found = complaints('authority_tools = ["a", 2]', AUTHORITY_TOOLS='["a", 3]')
    assert [line.partition(":")[0] for line in found] == ["snakepit.toml", "SNAKEPIT_OTEL_AUTHORITY_TOOLS"]


@given(st.sampled_from(sorted(variables(["gpu"]))))
def test_every_variable_names_its_setting(name: str) -> None:
    """From a setting to its variable and back is no way at all."""
    assert setting_of(name) == variables(["gpu"])[name][0]
