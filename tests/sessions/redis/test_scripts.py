"""Scripts of the Redis backend: their keys are declared, and those of one slot."""

from __future__ import annotations

import hashlib
import re

import pytest

from snakepit_otel.sessions.backends.redis._layout import Shard, owner_group, shard_number, share
from snakepit_otel.sessions.backends.redis._scripts import SCRIPTS, Script
from tests.sessions.redis.stores import Stores

_CALL = re.compile(r"(?:redis\.call|in_parts)\(\s*'(\w+)'\s*(?:,\s*([^,()\s]+))?")
_PASSED_ON = "redis.call(command, key, "  # by `in_parts`, of whose calls the keys are looked at
_scripts = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)


@_scripts
def test_every_key_is_declared(script: Script) -> None:
    """A key is a local of the first line, or one of KEYS: none is built from data, and each is used."""
    head, _, text = script.source.partition("\n")[2].partition("\n")
    assert head.startswith("local STAT")
    code = re.sub(r"--[^\n]*", "", text)
    used = {key for command, key in _CALL.findall(code) if command != "TIME"}
    names = {name.upper() for name in script.keys}
    assert used <= {*names, "KEYS[i]"}
    assert names <= used or "KEYS[i]" in used
    calls = re.findall(r"(?:redis\.call|(?<!function )in_parts)\(", code)
    assert len(calls) == len(_CALL.findall(code)) + code.count(_PASSED_ON)


@_scripts
def test_the_server_compiles_it_under_its_name(script: Script, stores: Stores) -> None:
    """The SHA-1 is that of the text, and the text is Lua."""
    assert script.sha == hashlib.sha1(script.source.encode()).hexdigest()
    assert stores.client.script_load(script.source) == script.sha


def test_keys_of_a_shard_are_in_one_slot() -> None:
    """All have the shard's hash tag."""
    shard = Shard("ours", 3)
    keys = {key for script in SCRIPTS for key in shard.keys(script)}
    assert {key.partition(b":")[0] for key in keys} == {b"{ours"}
    assert {key.partition(b"}")[0] for key in keys} == {b"{ours:3"}


def test_shards_are_fixed_and_their_shares_sum_up() -> None:
    """A session's shard depends on its id alone; shares are whole numbers, none larger than another by two."""
    assert [shard_number(name, 4) for name in (b"a", b"b", b"session-1")] == [3, 1, 2]
    shares = [share(10, shard, 4) for shard in range(4)]
    assert (shares, sum(shares), share(float("inf"), 1, 4)) == ([3, 3, 2, 2], 10, float("inf"))


def test_no_owner_is_another_ones_beginning() -> None:
    """Owners are told apart by a name of one length, whatever characters they have; none is one of its own."""
    groups = [owner_group(owner) for owner in (None, "", "a", "a\0", "a\0b", "a" * 200, "ü")]
    assert len(set(groups)) == len(groups)
    assert {len(group) for group in groups} == {16}
