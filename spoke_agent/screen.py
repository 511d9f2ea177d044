"""How ``wio-agent`` shows its answers: tables and sentences on stdout, everything else on stderr."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from protocol.errors import WioError
from protocol.messages import Finding, ProbeLine
from spoke_agent.access.ceiling import Line
from spoke_agent.access.minting import KeyOut
from spoke_agent.access.overview import Budget, Reach
from spoke_agent.access.overview import Cut as GrantCut
from spoke_agent.owner import Counted, Cut, RootStatus, Status, Verified

if TYPE_CHECKING:
    from rich.console import RenderableType

    from spoke_agent.joining import Joined, Left

_SIGNS: Final = {Finding.YES: ("yes", "green"), Finding.NO: ("no", "yellow"), Finding.UNKNOWN: ("?", "dim")}
_UNITS: Final = ("B", "K", "M", "G", "T", "P")
_STEP: Final = 1024
_FEW: Final = 10
_BUDGETS: Final = 10
"""Subjects whose budget is shown."""
_SAMPLES: Final = 5
_CUTS: Final = 20
"""Grants named that a ceiling cuts."""
_WIDE: Final = 160
"""Columns where nobody looks."""


def answer(value: object) -> None:
    """Print an answer as JSON."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def say(*lines: str) -> None:
    """Print sentences of the answer."""
    for line in lines:
        sys.stdout.write(_safe(line) + "\n")


def note(line: str) -> None:
    """Say something beside the answer, on stderr."""
    sys.stderr.write(_safe(line) + "\n")


def failure(error: WioError, *, as_json: bool) -> None:
    """Say what went wrong and what to do next, on stderr."""
    if as_json:
        sys.stderr.write(msgspec.json.encode(error.problem).decode() + "\n")
        return
    note(f"wio-agent: {error.message}")
    if error.todo:
        note(f"  {error.todo}")


def joined(what: Joined) -> None:
    """Show what came of joining."""
    if what.again:
        say(f"{what.name} has joined {what.hub} already; nothing was changed.")
    else:
        say(f"{what.name} has joined {what.hub}.", *(f"  {made}" for made in what.made))
    say(f"  hub key {what.hub_fingerprint}, node key {what.node_fingerprint}", "")
    probes(what.facts.server, what.facts.probes)


def probes(server: str, lines: Sequence[ProbeLine]) -> None:
    """Show the probe table."""
    from rich.table import Table  # noqa: PLC0415 - a tenth of a second that JSON does without
    from rich.text import Text  # noqa: PLC0415 - the same

    table = Table(title=Text(f"What this server can do: {_safe(server)}"), title_justify="left", box=None, pad_edge=False)
    for column in ("capability", "", "what that means"):
        table.add_column(column, overflow="fold")
    for line in lines:
        word, style = _SIGNS[line.found]
        table.add_row(Text(_safe(line.capability)), Text(word, style=style), Text(_safe(line.detail)))
    _draw(table)


def status(what: Status) -> None:
    """Show the agent at a glance."""
    hub = f"connected since {_time(what.connected_since)}" if what.connected_since else "not connected"
    if what.problem is not None:
        hub += f": {what.problem.message}"
    rows = [
        ("node", f"{what.name} ({what.node})"),
        ("agent", f"running, process {what.pid}" if what.pid else "not running: wio-agent run"),
        ("hub", f"{what.hub}, {hub}" if what.pid else what.hub),
        *([("keys at", f"{what.endpoint}, for people on this machine")] if what.endpoint else []),
        ("storage", what.storage + ("" if what.storage_ready or not what.pid else ", not reached yet")),
        ("people", "CUT OFF: everybody (wio-agent resume)" if what.paused else f"{what.keys_out} keys are out"),
        ("journal", f"{what.pending_rows} rows the hub has not acknowledged, {what.dirty} changes to look at"),
    ]
    rows += [("evicted", "the hub has removed this node: wio-agent leave")] if what.evicted else []
    rows += [("warning", warning) for warning in what.warnings]
    rows += [("not read", sentence) for sentence in what.unreadable]
    _print(("", ""), rows, head=False)
    if what.roots:
        say("")
        roots(what.roots)


def roots(what: Sequence[RootStatus]) -> None:
    """Show roots."""
    rows = [
        (
            root.name,
            root.place,
            root.level,
            f"{root.objects:,}",
            size(root.bytes),
            f"scanning, {root.scan_objects:,} so far" if root.scanning else _scanned(root),
        )
        for root in what
    ]
    _print(("root", "place", "the hub knows", "objects", "bytes", "scanned"), rows)


def reaches(what: Sequence[Reach]) -> None:
    """Show who can reach what."""
    if not what:
        say("Nobody can reach anything on this node.")
        return
    rows = [
        (
            one.subject if one.kind == "person" else f"({one.kind})",
            one.permission.value,
            one.place,
            _time(one.expires * 1_000_000) if one.expires is not None else "",
            str(one.keys_out),
            "" if one.enforced else "NOT ENFORCED YET",
        )
        for one in what
    ]
    _print(("who", "may", "in", "until", "keys out", ""), rows)


def budgets(what: Sequence[Budget]) -> None:
    """Show what everybody's access costs the storage server, the dearest first."""
    if not what:
        return
    rows = [
        (
            one.subject if one.kind == "person" else f"({one.kind})",
            str(one.grants),
            f"{one.patterns} of {one.quick}",
            str(one.policies),
            "" if one.patterns <= one.quick else "SLOW: share a folder above instead of each one",
        )
        for one in what[:_BUDGETS]
    ]
    say("")
    _print(("who", "grants", "places that stay quick", "policies", ""), rows)
    if len(what) > _BUDGETS:
        say(f"and {len(what) - _BUDGETS} more with less: --budget --json has them all.")


def keys(what: Sequence[KeyOut]) -> None:
    """Show keys that are out."""
    if not what:
        say("No key is out.")
        return
    rows = [
        (
            key.access_key,
            key.person,
            _time(key.issued_at * 1_000_000),
            _time(key.expires * 1_000_000),
            "narrowed" if key.narrowed else "",
        )
        for key in what
    ]
    _print(("key", "of", "issued", "expires", ""), rows)


def cut(what: Cut) -> None:
    """Say what came of a pause or its end."""
    if what.paused:
        say("Everybody is cut off: keys and links that are out open nothing. Until: wio-agent resume")
    else:
        say("Everybody may do again what was granted to them.")
    for problem in what.problems:
        note(f"Not enforced yet: {problem.message}")


def counted(what: Counted) -> None:
    """Say what a dry run found."""
    seconds = max(what.took_s, 0.001)
    say(
        f"{what.root}: {what.objects:,} objects, {size(what.bytes)}, listed in {seconds:.1f} s "
        f"({what.objects / seconds:,.0f} objects/s). An import takes about {max(1, round(what.estimate_s))} s."
    )
    if what.extensions:
        rows = [(one.extension or "(none)", f"{one.objects:,}", size(one.bytes)) for one in what.extensions]
        _print(("extension", "objects", "size"), rows)
    for odd in what.odd:
        say(f"{odd.objects:,} names have {odd.what}: {', '.join(odd.samples)}")


def verified(what: Sequence[Verified]) -> None:
    """Say whether roots agree with their storage."""
    if not what:
        say("There is no root to compare.")
    for one in what:
        if one.same:
            say(f"{one.root}: {one.kept.objects:,} objects, {size(one.kept.bytes)}: the same as in storage.")
            continue
        say(
            f"{one.root}: storage has {one.storage.objects:,} objects, {size(one.storage.bytes)}; "
            f"known are {one.kept.objects:,}, {size(one.kept.bytes)}: DIFFERENT."
        )
        kinds = (("not known", one.unknown), ("not in storage", one.gone), ("known otherwise", one.other))
        for what_differs, found in kinds:
            if found.objects:
                say(f"  {found.objects:,} {what_differs}: {', '.join(found.samples[:_SAMPLES])}")
        if one.kept != one.recounted:
            say("  What is known does not add up to its own totals: please report this.")
        note("Bring it up to date: wio-agent scan " + one.root)


def ceiling(what: Sequence[Line], path: str, cuts: Sequence[GrantCut] | None) -> None:
    """Explain the owner's limits line by line; ``cuts`` None: there are no grants to hold against them."""
    say(f"{path} is good.")
    rows = [(str(line.number) if line.number else "", line.setting, line.value, line.means) for line in what]
    _print(("line", "limit", "", "what that means"), rows)
    if cuts is None:
        return
    say("", f"It cuts {len(cuts)} of the grants that are here." if cuts else "It cuts none of the grants that are here.")
    say(*(f"  {cut.subject}: {cut.why}" for cut in cuts[:_CUTS]))
    if len(cuts) > _CUTS:
        say(f"  and {len(cuts) - _CUTS} more: --json has them all.")


def left(what: Left) -> None:
    """Say what leaving removed."""
    say(f"{what.name} has left. Removed:", *(f"  {one}" for one in what.removed), "Your data is as it was.", what.todo)


def size(count: int) -> str:
    """Return bytes for people: 2.4G."""
    value = float(count)
    for unit in _UNITS:
        if value < _STEP or unit == _UNITS[-1]:
            return f"{value:.1f}{unit}" if unit != "B" and value < _FEW else f"{value:.0f}{unit}"
        value /= _STEP
    return str(count)  # pragma: no cover - the loop ends at its last unit


def _scanned(root: RootStatus) -> str:
    if root.problem is not None:
        return f"failed: {root.problem.message}"
    return _time(root.scanned_at) if root.scanned_at is not None else "never"


def _time(micros: int) -> str:
    return dt.datetime.fromtimestamp(micros // 1_000_000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _print(columns: Sequence[str], rows: Sequence[Sequence[str]], *, head: bool = True) -> None:
    from rich.table import Table  # noqa: PLC0415 - a tenth of a second that JSON does without
    from rich.text import Text  # noqa: PLC0415 - the same

    table = Table(box=None, pad_edge=False, show_header=head, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_safe(cell)) for cell in row))
    _draw(table)


def _draw(table: RenderableType) -> None:
    from rich.console import Console  # noqa: PLC0415 - a tenth of a second that JSON does without

    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    with console.capture() as captured:
        console.print(table)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def _safe(text: str) -> str:
    """Return text without anything a terminal would act on."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
