"""`snakepit-otel sessions`: list, group, show and delete the sessions of a running authority."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from snakepit_otel.cli.addresses import Config, SocketAddress, client_of
from snakepit_otel.cli.output import (
    EXIT_NOT_FOUND,
    EXIT_TOOL_FAILED,
    EXIT_USAGE,
    console,
    error_console,
    print_json,
    print_wide,
    run,
)
from snakepit_otel.cli.status_view import duration
from snakepit_otel.common.clock import SystemClock
from snakepit_otel.errors import ConfigurationError
from snakepit_otel.sessions import GroupBy, Limits
from snakepit_otel.sessions.backends.factory import create_backend
from snakepit_otel.settings._loading import load


class Mode(StrEnum):
    """Whether strict mode is on."""

    ON = "on"
    OFF = "off"


app = typer.Typer(no_args_is_help=True, help="List, show and delete the sessions of a running authority.")
_HEADINGS = {GroupBy.OWNER: "owner", GroupBy.SITE: "call site", GroupBy.TOOL: "tool"}
_UNKNOWN = {
    GroupBy.OWNER: "-: sessions without an owner",
    GroupBy.SITE: "-: not known; call sites are recorded of sessions that are made in strict mode",
    GroupBy.TOOL: "-: not made by a request for a tool",
}
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
SessionId = Annotated[str, typer.Argument(help="The session's id.")]


@app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The largest number of sessions.")] = 100,
    after: Annotated[str, typer.Option(help="Only ids after this one, for the next page.")] = "",
    owner: Annotated[str | None, typer.Option(help="Only the sessions of this owner.")] = None,
    by: Annotated[
        GroupBy | None,
        typer.Option(help="Show totals: by owner; by site, the line of code that made them; or by tool."),
    ] = None,
    as_json: AsJson = False,
    address: SocketAddress = None,
    config: Config = None,
) -> None:
    """List live sessions in order of id. Listing does not extend their life."""
    if by is not None:
        if owner is not None or after:
            raise typer.BadParameter("it shows totals of all sessions, without --owner and --after", param_hint="--by")
        run(partial(_show_groups, by, limit, as_json, address, config))
        return

    async def work() -> None:
        async with client_of(address, config) as client:
            sessions = await client.list_sessions(after, limit, owner=owner)
        if as_json:
            print_json([_as_dict(session) for session in sessions])
            return
        table = _table("session", "owner", "last worker", "idle", "expires in", "bytes")
        for session in sessions:
            table.add_row(
                session.id,
                session.owner or "-",
                session.last_worker_id or "-",
                f"{session.idle_seconds:.0f} s",
                f"{session.expires_in_seconds:.0f} s",
                str(session.memory_bytes),
            )
        print_wide(table if sessions else "no live sessions")
        if len(sessions) == limit:
            console.print(f"there may be more: --after {sessions[-1].id}", soft_wrap=True)

    run(work)


@app.command()
def show(session_id: SessionId, as_json: AsJson = False, address: SocketAddress = None, config: Config = None) -> None:
    """Show one session with its state. Showing does not extend its life."""

    async def work() -> None:
        async with client_of(address, config) as client:
            shown = await client.show_session(session_id)
        about = _as_dict(shown.session)
        state = {entry.key: {"value": json.loads(entry.json), "version": entry.version} for entry in shown.state}
        if as_json:
            print_json({**about, "state": state})
            return
        for key, value in about.items():
            console.print(f"{key:20} {value}", soft_wrap=True)
        table = _table("key", "version", "value")
        for key, entry in state.items():
            text = json.dumps(entry["value"], ensure_ascii=False)
            table.add_row(key, str(entry["version"]), text if len(text) <= 200 else text[:200] + "…")
        print_wide(table if state else "no state")

    run(work)


@app.command()
def limits(
    set_: Annotated[
        bool, typer.Option("--set", help="Give the store the limits of the settings; then restart its servers.")
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Show the limits that a shared store has, and those of the settings; a server with others does not start.

    Reads session_store.url, and needs no running server.
    """

    async def work() -> None:
        settings = load(config).settings.session_store
        if not settings.url:
            raise ConfigurationError("session_store.url: there is none, and sessions in memory have a server's limits")
        backend: Any = create_backend(None, settings, SystemClock())
        if set_:
            await backend.set_limits()
        stored: Limits | None = await backend.stored_limits()
        ours = asdict(settings.limits)
        theirs = {} if stored is None else asdict(stored)
        if as_json:
            print_json({name: {"store": theirs.get(name), "settings": value} for name, value in ours.items()})
            return
        table = _table("session_store.", "store", "settings")
        for name, value in ours.items():
            table.add_row(name, str(theirs.get(name, "-")), str(value))
        print_wide(table)
        if theirs and theirs != ours:
            console.print("they differ: --set gives the store those of the settings", soft_wrap=True)

    run(work)


@app.command()
def delete(
    session_id: Annotated[str | None, typer.Argument(help="The session's id.")] = None,
    owner: Annotated[str | None, typer.Option(help="Delete all sessions of this owner instead.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --owner: do not ask, for scripts.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --owner: only count them.")] = False,
    address: SocketAddress = None,
    config: Config = None,
) -> None:
    """Delete one session, or all of an owner; exit code 3 if there is none."""
    if (session_id is None) == (owner is None):
        raise typer.BadParameter("give a session's id, or --owner")
    if owner is not None:
        run(partial(_delete_of_owner, owner, yes, dry_run, address, config))
        return
    if yes or dry_run:
        raise typer.BadParameter("--yes and --dry-run are for --owner; one session is deleted without a question")

    async def work() -> None:
        assert session_id is not None
        async with client_of(address, config) as client:
            if not await client.remove_session(session_id):
                error_console.print(f"no live session '{session_id}'", soft_wrap=True)
                raise typer.Exit(EXIT_NOT_FOUND)
        console.print(f"deleted {session_id}", soft_wrap=True)

    run(work)


@app.command()
def stats(as_json: AsJson = False, address: SocketAddress = None, config: Config = None) -> None:
    """Show the ledger: created - deleted - pruned = live."""

    async def work() -> None:
        async with client_of(address, config) as client:
            found = await client.stats()
        values: dict[str, Any] = {field.name: getattr(found, field.name) for field in found.DESCRIPTOR.fields}
        for quota in ("max_sessions", "max_sessions_per_owner"):
            values[quota] = None if math.isinf(values[quota]) else int(values[quota])
        if as_json:
            print_json(values)
            return
        for key, value in values.items():
            console.print(f"{key:22} {'no quota' if value is None else value}")

    run(work)


@app.command()
def strict(
    mode: Annotated[Mode, typer.Argument(help="on or off.")],
    address: SocketAddress = None,
    config: Config = None,
) -> None:
    """Switch strict mode on or off while the server runs: warnings of too many sessions name who made them."""

    async def work() -> None:
        async with client_of(address, config) as client:
            is_on = await client.set_strict_mode(mode is Mode.ON)
        if is_on:
            console.print("strict mode is on; of sessions made before, the line of code is not known", soft_wrap=True)
        else:
            console.print("strict mode is off")

    run(work)


async def _show_groups(by: GroupBy, limit: int, as_json: bool, address: str | None, config: Path | None) -> None:
    async with client_of(address, config) as client:
        found = await client.group_sessions(by.value, limit)
        is_strict = by is GroupBy.SITE and (await client.status()).strict_mode
    if as_json:
        print_json({"by": by.value, "total": found.total, "groups": [asdict(group) for group in found.groups]})
        return
    table = _table(_HEADINGS[by], "sessions", "bytes", "oldest")
    for group in found.groups:
        name = group.name or "-"
        table.add_row(name, str(group.count), str(group.memory_bytes), duration(group.oldest_seconds))
    print_wide(table if found.groups else "no live sessions")
    if found.total > len(found.groups):
        console.print(f"{found.total - len(found.groups)} more groups: --limit", soft_wrap=True)
    if any(group.name is None for group in found.groups):
        console.print(_UNKNOWN[by], soft_wrap=True)
        if by is GroupBy.SITE and not is_strict:
            console.print("switch it on with: snakepit-otel sessions strict on", soft_wrap=True)


async def _delete_of_owner(owner: str, yes: bool, dry_run: bool, address: str | None, config: Path | None) -> None:
    async with client_of(address, config) as client:
        count = await client.delete_sessions(owner=owner, dry_run=True)
        if not count:
            error_console.print(f"owner '{owner}' has no live sessions", soft_wrap=True)
            raise typer.Exit(EXIT_NOT_FOUND)
        if dry_run:
            console.print(f"{count} sessions of owner {owner} would be deleted", soft_wrap=True)
            return
        if not yes:
            if not sys.stdin.isatty():
                error_console.print(
                    f"{count} sessions of owner {owner} would be deleted; confirm with --yes", soft_wrap=True
                )
                raise typer.Exit(EXIT_USAGE)
            console.print(f"Delete the {count} sessions of owner {owner}? [y/N] ", soft_wrap=True, end="")
            if (await asyncio.to_thread(sys.stdin.readline)).strip().lower() not in ("y", "yes"):
                console.print("nothing was deleted")
                raise typer.Exit(EXIT_TOOL_FAILED)
        deleted = await client.delete_sessions(owner=owner)
    console.print(f"deleted {deleted} sessions of owner {owner}", soft_wrap=True)


def _table(*headings: str) -> Table:
    return Table(*(Column(heading, overflow="fold") for heading in headings), box=None)


def _as_dict(session: Any) -> dict[str, Any]:
    return {
        "id": session.id,
        "owner": session.owner or None,
        "created_at": datetime.fromtimestamp(session.created_at, UTC).isoformat(timespec="seconds"),
        "ttl_seconds": session.ttl_seconds,
        "idle_seconds": round(session.idle_seconds, 3),
        "expires_in_seconds": round(session.expires_in_seconds, 3),
        "last_worker_id": session.last_worker_id or None,
        "memory_bytes": session.memory_bytes,
        "version": session.version,
        "metadata": dict(session.metadata),
    }
