"""``wio root``: the places on a node inside which wio manages everything, and importing what is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from protocol.api import NewRoot, Root, RootKind, ScanStatus
from protocol.errors import DeadlinePassed, StorageRefused
from protocol.hours import check_hours
from protocol.messages import IndexLevel, ScanState
from protocol.names import Layout
from wio.cli import applying, here, output, proofs, root_changes
from wio.cli.output import Column, Json
from wio.cli.words import MICROSECONDS, count, moment, root_address, root_view, safe, size, span

if TYPE_CHECKING:
    from wio.client import Client

_PANEL: Final = "Nodes and roots"
_EVERY_S: Final = 0.25
_BEGINS_WITHIN_S: Final = 60.0
_INDEX_STILL_S: Final = 1.5
"""Once a scan is done and the index has not moved for so long, it has what it will have: files in no workspace stay out."""
Address = Annotated[str, typer.Argument(metavar="NODE/ROOT", help="The root.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=True, help="Roots: make, list, show, survey, scan, change, retire.")
    group.command("create")(create)
    group.command("ls")(list_roots)
    group.command("show")(show)
    group.command("scan")(scan)
    group.command("survey")(proofs.survey)
    group.command("apply")(applying.apply)
    root_changes.add_to(group)
    app.add_typer(group, name="root", rich_help_panel=_PANEL)


def create(
    address: Annotated[str, typer.Argument(metavar="NODE/ROOT", help="Its node and name; or the name, with --node.")],
    *,
    node: Annotated[
        str | None, typer.Option("--node", help="The node, if not given before the name.", show_default=False)
    ] = None,
    bucket: Annotated[str, typer.Option("--bucket", help="The bucket on the node.", show_default=False)],
    prefix: Annotated[str, typer.Option("--prefix", help="A folder of it; the whole bucket without.", show_default=False)] = "",
    kind: Annotated[RootKind, typer.Option("--kind", help="Who sees it, and whether wio chooses where things lie.")] = (
        RootKind.PRIVATE
    ),
    layout: Annotated[Layout | None, typer.Option("--layout", help="The safe one if not given.", show_default=False)] = None,
    accept_visible_names: Annotated[
        bool, typer.Option("--accept-visible-names", help="Allow a layout in which this server shows names to others.")
    ] = False,
    level: Annotated[IndexLevel, typer.Option("--level", help="How much the hub may know of the files.")] = IndexLevel.NAMES,
    pace: Annotated[int, typer.Option("--pace", min=0, help="Files a second while scanning; 0: no limit.")] = 0,
    quiet: Annotated[
        str, typer.Option("--quiet", metavar="08:00-18:00", help="Hours of the node's day in which no scan runs.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Make nothing: count what an import would bring.")] = False,
    json: Json = False,
) -> None:
    """Make a root in a bucket of your node; what is there already is imported by wio root scan."""
    node, name = root_address(address if node is None else f"{node}/{address}")
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    asked = NewRoot(node, name, kind, bucket, prefix, layout, accept_visible_names, level, pace, check_hours(quiet))
    if dry_run:
        proofs.dry_run(asked, as_json=json)
        return
    with here.session() as session:
        made = session.client.create_root(asked)
    if json:
        output.value(made)
        return
    where = f"s3://{made.bucket}/{made.prefix}"
    output.line(f"Root {_address(made)} is made ({made.kind.value}, layout {made.layout.value}): {safe(where)}")
    _warn(made)


def list_roots(json: Json = False) -> None:
    """List the roots you may know of."""
    with here.session() as session:
        found = session.client.roots()
    if json:
        output.value(found)
        return
    if not found:
        output.note("No roots. Make one on your node: wio root create NODE/ROOT --bucket BUCKET.")
        return
    columns = [
        Column("root", fold=True),
        Column("kind"),
        Column("layout"),
        Column("index"),
        Column("files", right=True),
        Column("size", right=True),
        Column("view", fold=True),
        Column("lies at", fold=True),
    ]
    rows = [
        (
            f"{one.node}/{one.name}",
            one.kind.value,
            one.layout.value,
            one.level.value,
            f"{one.objects:,}",
            size(one.bytes),
            root_view(one.view) if one.view is not None else "",
            f"s3://{one.bucket}/{one.prefix}",
        )
        for one in found
    ]
    output.table(columns, rows)


def show(address: Address, json: Json = False) -> None:
    """Show one root: where it lies, what it holds, its digest, its warnings."""
    node, name = root_address(address)
    with here.session() as session:
        one = session.client.root(node, name)
    if json:
        output.value(one)
        return
    output.fields(
        [
            ("root", f"{one.node}/{one.name}"),
            ("owner", one.owner),
            ("kind", one.kind.value),
            ("lies at", f"s3://{one.bucket}/{one.prefix}"),
            ("layout", one.layout.value),
            ("index", one.level.value),
            ("holds", f"{count(one.objects, 'file')}, {size(one.bytes)}"),
            ("digest", one.digest),
            *root_changes.hours(one),
            *_view(one),
            *root_changes.roles(one),
            ("made", moment(one.created_at)),
        ]
    )
    _warn(one)


def scan(
    address: Address,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until it is done and searchable.")] = True,
    json: Json = False,
) -> None:
    """Import what lies in a root, or compare it again with what the hub knows."""
    node, name = root_address(address)
    with here.session() as session:
        client = session.client
        before = client.scan_status(node, name)
        status = client.scan(node, name)
        if wait:
            status = _watch(client, node, name, before)
        left_out = wait and not json and status.searchable < status.objects
        scanned = client.root(node, name) if left_out else None
    if json:
        output.value(status)
    elif not wait:
        output.line(f"The scan of {safe(address)} has begun; wio root scan {safe(address)} shows how far it is.")
    else:
        took = max(status.at - status.started_at, 0) / MICROSECONDS
        output.line(
            f"{safe(address)} holds {count(status.objects, 'file')}, {size(status.bytes)}, scanned in {span(took)}; "
            f"{findable(status, scanned)}"
        )


def findable(status: ScanStatus, root: Root | None) -> str:
    """Say how many files of a scanned root can be found and, where ``root`` is given, why not the others. Pure."""
    some = f"{status.searchable:,} can be found"
    if root is None or status.searchable >= status.objects:
        return f"{some}."
    if root.level is IndexLevel.NONE:
        return f"{some}: the hub may not know what is in this root (index level none)."
    if root.kind.managed:
        return f"{some}; the others are outside workspaces, or not indexed yet."
    command = f"wio create NAME --root {safe(status.root)} --folder FOLDER"
    if status.searchable:
        return f"{some}, the others once their folder is a workspace and indexed: {command}"
    return f"they can be found once their folder is made a workspace: {command}"


class Watch:
    """Decides when a scan is over, one status at a time. Pure, apart from the clock passed in (seconds)."""

    def __init__(self, before: ScanStatus, clock: Callable[[], float]) -> None:
        self._before = before
        self._clock = clock
        self._began = clock()
        self._moved = self._began
        self._searchable = -1

    def over(self, status: ScanStatus) -> bool:
        """Say whether the scan asked for is done and the index has caught up.

        Raises StorageRefused if the scan failed, DeadlinePassed if it never began.
        """
        now = self._clock()
        if not self._begun(status):
            if now - self._began > _BEGINS_WITHIN_S:
                raise DeadlinePassed(f"The scan of {status.root} has not begun.", todo="Look at the node: wio node show.")
            return False
        if status.state is ScanState.FAILED:
            raise StorageRefused(f"The scan of {status.root} failed: {status.problem}", todo="Look at the node: wio node show.")
        if status.state is not ScanState.DONE:
            return False
        if status.searchable != self._searchable:
            self._searchable, self._moved = status.searchable, now
        return status.searchable >= status.objects or now - self._moved >= _INDEX_STILL_S

    def _begun(self, status: ScanStatus) -> bool:
        """Say whether this is about the scan asked for, not about the one before it."""
        if status.state is None:
            return False
        return (
            status.state is ScanState.RUNNING
            or self._before.state is ScanState.RUNNING
            or status.started_at != self._before.started_at
        )


def _watch(client: Client, node: str, name: str, before: ScanStatus) -> ScanStatus:
    from wio.cli.progress import Bar  # noqa: PLC0415  - brings rich, which JSON and help do without

    watch = Watch(before, time.monotonic)
    with Bar(f"{node}/{name}") as bar:
        try:
            while True:
                status = client.scan_status(node, name)
                bar.show(status)
                if watch.over(status):
                    return status
                time.sleep(_EVERY_S)
        except KeyboardInterrupt:
            output.note(f"The scan goes on without you; wio root scan {safe(node)}/{safe(name)} shows how far it is.")
            raise


def _view(one: Root) -> list[tuple[str, str]]:
    if one.view is None:
        return []
    scanned, due = one.view.scanned_at, one.view.next_scan_at
    return [
        ("view", root_view(one.view)),
        ("scanned", "never" if scanned is None else f"everything up to {moment(scanned)} is known"),
        ("next scan", "" if due is None else moment(due)),
    ]


def _address(one: Root) -> str:
    return f"{safe(one.node)}/{safe(one.name)}"


def _warn(one: Root) -> None:
    for text in one.warnings:
        output.note(f"warning: {safe(text)}")
