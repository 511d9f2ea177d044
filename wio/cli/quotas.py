"""``wio quota``: how much may lie in what, and how it stands. Sizes are read as in a search: 10M, 1T, 1.5GiB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from protocol.api import Quota, QuotaKind
from protocol.errors import BadInput, NotFound
from protocol.names import shown
from wio.cli import here, output
from wio.cli.output import Column, Json
from wio.cli.words import amount, exact, moment, safe, size

if TYPE_CHECKING:
    from wio.client import Client

_PANEL: Final = "Nodes and roots"
_NONE: Final = "none"
Kind = Annotated[QuotaKind, typer.Argument(help="What it counts.", show_default=False)]
Of = Annotated[
    str,
    typer.Argument(help="USER, USER@NODE/ROOT, NODE/ROOT or OWNER/WS, as the kind says.", show_default=False),
]


class Gone(msgspec.Struct, frozen=True):
    """What ``wio quota rm`` answers: the quota there was."""

    removed: Quota


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=True, help="Quotas: list, set, remove.")
    group.command("ls")(list_quotas)
    group.command("set")(change)
    group.command("rm")(remove)
    app.add_typer(group, name="quota", rich_help_panel=_PANEL)


def list_quotas(json: Json = False) -> None:
    """List the quotas that concern you, and how they stand."""
    with here.session() as session:
        found = session.client.quotas()
    if json:
        output.value(found)
        return
    if not found:
        output.note("No quotas.")
        return
    columns = [
        Column("kind"),
        Column("of", fold=True),
        Column("used", right=True),
        Column("warn at", right=True),
        Column("stop at", right=True),
        Column("stands", fold=True),
    ]
    rows = [(one.kind.value, one.of, used(one), _limit(one.soft), _limit(one.hard), state(one)) for one in found]
    output.table(columns, rows)


def change(
    kind: Kind,
    of: Of,
    *,
    hard: Annotated[
        str | None,
        typer.Option("--hard", metavar="SIZE", help="Beyond it nobody can add to it; none: no such limit.", show_default=False),
    ] = None,
    soft: Annotated[
        str | None,
        typer.Option("--soft", metavar="SIZE", help="Beyond it people are warned; none: no such limit.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Set a quota, or change one limit of it: 10M, 1T (thousands), 1.5GiB (1,024). What is not given stays."""
    if hard is None and soft is None:
        raise BadInput("There is no limit to set.", todo="Give --hard, --soft or both; wio quota rm removes a quota.")
    given = {name: _read(text) for name, text in (("hard", hard), ("soft", soft)) if text is not None}
    with here.session() as session:
        client = session.client
        of = _full(client, kind, of)
        before = None if len(given) == 2 else _find(client, kind, of)  # noqa: PLR2004  - both limits
        limits = {"hard": before.hard if before else None, "soft": before.soft if before else None} | given
        done = client.set_quota(kind, of, soft=limits["soft"], hard=limits["hard"])
    if json:
        output.value(done)
        return
    output.line(f"{_name(done)}: {used(done)} used; {_limits(done)}.")
    if done.over_since is not None:
        output.line(f"{state(done).capitalize()}.")
    for text in done.caveats:
        output.note(f"note: {safe(text)}")


def remove(kind: Kind, of: Of, json: Json = False) -> None:
    """Remove a quota: where it was exceeded, people can write again."""
    with here.session() as session:
        client = session.client
        of = _full(client, kind, of)
        one = _find(client, kind, of)
        if one is None:
            raise NotFound(f"There is no {kind.value} quota of {shown(of)}.", todo="wio quota ls shows those there are.")
        client.delete_quota(one.id)
    if json:
        output.value(Gone(one))
        return
    output.line(f"{_name(one)} has no quota any more ({_limits(one)} before).")


def used(one: Quota) -> str:
    """Say how much is used, in units that can be told from those of the limits: ``884GiB (95%)``."""
    text = size(one.used)
    limit = one.hard if one.hard is not None else one.soft
    share = f" ({one.used * 100 // limit}%)" if limit else ""
    return f"{text}{'iB' if text[-1].isalpha() else ' B'}{share}"


def state(one: Quota) -> str:
    """Say what a quota does now."""
    if one.over_since is not None:
        return f"over since {moment(one.over_since)}: nobody can add to it, only read and delete"
    if one.soft is not None and one.used >= one.soft:
        return "over the soft limit"
    return "below"


def _name(one: Quota) -> str:
    return f"{one.kind.value} {safe(one.of)}"


def _limits(one: Quota) -> str:
    said = [f"{word} at {exact(limit)}" for word, limit in (("warn", one.soft), ("stop", one.hard)) if limit is not None]
    return ", ".join(said) or "no limit"


def _limit(limit: int | None) -> str:
    return "-" if limit is None else exact(limit)


def _read(text: str) -> int | None:
    return None if text.strip().lower() == _NONE else amount(text)


def _full(client: Client, kind: QuotaKind, of: str) -> str:
    """Return what a quota is of with its owner, as the hub writes it."""
    of = of.rstrip("/")
    return f"{client.me().username}/{of}" if kind is QuotaKind.WORKSPACE and "/" not in of else of


def _find(client: Client, kind: QuotaKind, of: str) -> Quota | None:
    return next((one for one in client.quotas() if one.kind is kind and one.of == of), None)
