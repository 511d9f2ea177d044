"""``wio node``: join strings, the nodes one may know of, and whose signature is trusted."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from protocol.api import Node, NodeState, Unreadable
from protocol.errors import BadSignature
from protocol.identity import fingerprint, from_text
from wio.cli import asking, here, output, proofs
from wio.cli.output import Column, Json
from wio.cli.words import count, life, moment, root_address, root_view, safe, span

_PANEL: Final = "Nodes and roots"
_PAGE: Final = 200
Name = Annotated[str, typer.Argument(help="The node.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=True, help="Nodes: invite, list, show, verify, trust, confirm, evict.")
    group.command("invite")(invite)
    group.command("ls")(list_nodes)
    group.command("show")(show)
    group.command("unreadable")(unreadable)
    group.command("trust")(trust)
    group.command("verify")(proofs.verify)
    group.command("confirm")(confirm)
    group.command("evict")(evict)
    app.add_typer(group, name="node", rich_help_panel=_PANEL)


def invite(
    name: Annotated[
        str | None, typer.Argument(help="What the node will be called; else its owner chooses.", show_default=False)
    ] = None,
    ttl: Annotated[str, typer.Option("--ttl", metavar="LIFE", help="How long the string can be used.")] = "10m",
    replace: Annotated[
        bool,
        typer.Option("--replace", help="For the place of the node of that name, whose agent has lost its state directory."),
    ] = False,
    json: Json = False,
) -> None:
    """Ask for a join string, and print the line to run beside the storage server."""
    with here.session() as session:
        invitation = session.client.invite(name, life(ttl), replace=replace)
    if json:
        output.value(invitation)
        return
    output.line(invitation.command)
    output.note(f"Run this beside the storage server. It works once, until {moment(invitation.expires_at)}.")


def list_nodes(json: Json = False) -> None:
    """List the nodes you may know of."""
    with here.session() as session:
        found = session.client.nodes()
    if json:
        output.value(found)
        return
    if not found:
        output.note("No nodes. Add one: wio node invite.")
        return
    columns = [
        Column("node"),
        Column("state"),
        Column("owner"),
        Column("storage", fold=True),
        Column("endpoint", fold=True),
        Column("seen"),
        Column("view"),
        Column("alarms", right=True),
    ]
    output.table(columns, [_row(one) for one in found])


def show(name: Name, json: Json = False) -> None:
    """Show one node: its storage server, how fresh its roots are, alarms and what to do, what a probe found."""
    with here.session() as session:
        one = session.client.node(name)
        known = session.pins.key(one.name)
    if json:
        output.value(one)
        return
    key = from_text(one.key)
    seen = "not seen before by this machine" if known is None else "as seen before" if known == key else "NOT as seen before"
    output.fields(
        [
            ("node", one.name),
            ("state", one.state.value),
            ("owner", one.owner),
            ("storage", f"{one.storage}, {one.server}"),
            ("endpoints", ", ".join(one.endpoints)),
            ("region", one.region),
            ("isolates names", one.isolates_names),
            ("agent", one.agent_version),
            ("fingerprint", f"{fingerprint(key)} ({seen})"),
            ("changes to come", f"{one.pending_rows:,}" if one.pending_rows else ""),
            ("seen", _seen(one)),
            ("view", _age(one)),
            ("joined", moment(one.joined_at)),
            *(("limit", text) for text in one.ceiling),
            *(("warning", text) for text in one.warnings),
        ]
    )
    if one.roots:
        output.line()
        output.table(
            [Column("root", fold=True), Column("view", fold=True), Column("known up to"), Column("next scan")],
            [(view.root, root_view(view), _moment(view.scanned_at), _moment(view.next_scan_at)) for view in one.roots],
        )
    for alarm in one.alarms:
        output.line()
        output.line(f"ALARM since {moment(alarm.since)} ({alarm.kind.value}): {safe(alarm.message)}")
        output.line(f"  {safe(alarm.todo)}")
    if one.probes:
        output.line()
        output.table(
            [Column("can"), Column("found"), Column("detail", fold=True)],
            [(line.capability, line.found.value, line.detail) for line in one.probes],
        )


def trust(
    name: Name,
    expected: Annotated[
        str | None, typer.Option("--fingerprint", help="Only if its key has this fingerprint.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Accept the key a node has now, after its owner told you that it changed."""
    with here.session() as session:
        one = session.client.node(name)
        key = from_text(one.key)
        if expected is not None and expected.strip().lower() != fingerprint(key):
            raise BadSignature(
                f"Node {safe(one.name)} has a key of fingerprint {fingerprint(key)}, not {safe(expected)}. Nothing changed.",
                todo="Ask its owner which is right.",
            )
        session.pins.remember(one.name, key)
    if json:
        output.value(one)
        return
    output.line(f"Node {safe(one.name)} is trusted with the key {fingerprint(key)}.")


def confirm(name: Name, json: Json = False) -> None:
    """Say that what is shared now is right, after the hub came back from a backup. Until then its node only narrows.

    Look at wio shares first: a share that was taken back after the backup was made may be there again.
    """
    with here.session() as session:
        done = session.client.confirm_node(name)
    if json:
        output.value(done)
        return
    if done.sets:
        output.line(f"Confirmed: {safe(done.node)} follows the hub again for {count(done.sets, 'grant set')}.")
    else:
        output.line(f"{safe(done.node)} waits for no confirmation.")


def evict(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove a node from the hub. Its data stays where it is; its workspaces are gone from here."""
    asking.confirm(f"Remove node {safe(name)} from the hub?", f"Removing node {safe(name)}", yes=yes)
    with here.session() as session:
        one = session.client.node(name)
        session.client.evict(name)
    if json:
        output.value(one)
        return
    output.line(f"Node {safe(one.name)} is removed from the hub.")


def _row(one: Node) -> tuple[str, ...]:
    endpoint = one.endpoints[0] if one.endpoints else ""
    return (
        one.name,
        one.state.value,
        one.owner,
        one.server or one.storage,
        endpoint,
        _seen(one),
        _age(one),
        str(len(one.alarms) or ""),
    )


def _age(one: Node) -> str:
    return "" if one.age_s is None else f"{span(max(one.age_s, 0.0))} behind"


def _moment(at: int | None) -> str:
    return "never" if at is None else moment(at)


def _seen(one: Node) -> str:
    if one.state is NodeState.ONLINE:
        return "now"
    return moment(one.seen_at) if one.seen_at is not None else "never"


def unreadable(
    address: Annotated[str, typer.Argument(metavar="NODE/ROOT", help="The root.", show_default=False)],
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show so many at most.")] = 200,
    json: Json = False,
) -> None:
    """List files that could not be read at index level metadata or content, and why."""
    node, root = root_address(address)
    found: list[Unreadable] = []
    with here.session() as session:
        while len(found) < limit:
            asked = min(limit - len(found), _PAGE)
            page = session.client.unreadable(node, root, after=found[-1].key if found else None, limit=asked)
            found += page
            if len(page) < asked:
                break
    if json:
        output.value(found)
        return
    if not found:
        output.note(f"Every file of {safe(address)} that was read could be.")
        return
    output.table(
        [Column("file", fold=True), Column("kind"), Column("why", fold=True)],
        [(one.key, one.kind, one.problem) for one in found],
    )
