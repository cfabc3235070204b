"""`snakepit-otel sessions`: list, show and delete the sessions of a running authority."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from snakepit_otel.cli.addresses import Config, SocketAddress, client_of
from snakepit_otel.cli.output import EXIT_NOT_FOUND, console, error_console, print_json, print_wide, run

app = typer.Typer(no_args_is_help=True, help="List, show and delete the sessions of a running authority.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
SessionId = Annotated[str, typer.Argument(help="The session's id.")]


@app.command("list")
def list_sessions(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The largest number of sessions.")] = 100,
    after: Annotated[str, typer.Option(help="Only ids after this one, for the next page.")] = "",
    as_json: AsJson = False,
    address: SocketAddress = None,
    config: Config = None,
) -> None:
    """List live sessions in order of id. Listing does not extend their life."""

    async def work() -> None:
        async with client_of(address, config) as client:
            sessions = await client.list_sessions(after, limit)
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
def delete(session_id: SessionId, address: SocketAddress = None, config: Config = None) -> None:
    """Delete one session; exit code 3 if there is none."""

    async def work() -> None:
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
