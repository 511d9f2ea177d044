"""When a node needs its owner's eyes. Pure: facts and the time in, alarms out.

What is decided about a node that is away is only what its absence says: what was wrong with it before is neither over nor
new until it speaks again. The same holds for the time after the hub's start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from protocol.api import Alarm, AlarmKind
from protocol.messages import RootActivity

MICRO: Final = 1_000_000
DAY_US: Final = 86_400 * MICRO
FRESH_S: Final = 15.0
"""A view that is not older counts as up to date: an agent that has nothing to tell says so every few seconds."""
SETTLED_S: Final = 30.0
"""How long what an agent says must last before it is an alarm: what passes by itself alarms nobody."""
_TIMES: Final = 3
"""So many intervals without a completed scan are too many."""


class Thresholds(msgspec.Struct, frozen=True):
    """From when on something is an alarm."""

    offline_s: int = 300
    behind_s: int = 60
    unscanned_days: int = 7
    """Where the agent has not said how often it scans; else three times its interval."""


class RootFacts(msgspec.Struct, frozen=True):
    """What is known of one root. Times in Unix microseconds, 0 for never; ``name`` is ``node/root``."""

    id: int
    name: str
    created_at: int
    drifted_at: int | None = None
    activity: RootActivity | None = None
    """None: its agent has said nothing of it yet."""
    age_s: float | None = None
    scanned_at: int = 0
    interval: int = 0
    """Between the scans its agent has planned, in microseconds; 0: unknown."""
    dirty: int = 0


class NodeFacts(msgspec.Struct, frozen=True):
    """What is known of one node. Times in Unix microseconds."""

    id: int
    name: str
    online: bool
    heard: bool
    """Whether it has said how it is, since the hub's start."""
    seen_at: int
    pending_rows: int = 0
    growing_since: int | None = None
    """Since when its rows on their way here have become more and never fewer."""
    warnings: tuple[str, ...] = ()
    roots: tuple[RootFacts, ...] = ()


class Key(msgspec.Struct, frozen=True):
    """What an alarm is about; ``root`` 0: the whole node."""

    kind: AlarmKind
    node: int
    root: int = 0


class Raised(msgspec.Struct, frozen=True):
    """An alarm that stands. ``since`` in Unix microseconds."""

    key: Key
    node: str
    root: str
    since: int
    message: str
    todo: str

    @property
    def shown(self) -> Alarm:
        """The alarm as people see it."""
        return Alarm(self.key.kind, self.node, self.root, self.since, self.message, self.todo)


class Turn(msgspec.Struct, frozen=True):
    """What one look changed, and what stands now."""

    raised: tuple[Raised, ...]
    cleared: tuple[Raised, ...]
    standing: tuple[Raised, ...]


class _Found(msgspec.Struct, frozen=True):
    """Something wrong; ``settles`` where it has to last before it counts."""

    alarm: Raised
    settles: bool = False


class Watch:
    """Remembers which alarms stand. ``began`` is when the hub did: nobody can have been heard before, Unix microseconds."""

    def __init__(self, thresholds: Thresholds, *, began: int, standing: Iterable[Raised] = ()) -> None:
        self._thresholds = thresholds
        self._began = began
        self._standing: dict[Key, Raised] = {one.key: one for one in standing}
        self._first: dict[Key, int] = {}

    @property
    def standing(self) -> tuple[Raised, ...]:
        """The alarms that stand."""
        return tuple(self._standing.values())

    def look(self, nodes: Sequence[NodeFacts], now: int) -> Turn:
        """Compare the nodes with what stands. A node that is not among them is gone, and its alarms with it."""
        found: dict[Key, _Found] = {}
        for node in nodes:
            for one in _findings(node, self._thresholds, now, self._began):
                found[one.alarm.key] = one
        self._first = {key: self._first.get(key, now) for key in found}
        here = {node.id: node for node in nodes}
        roots = {(node.id, root.id) for node in nodes for root in node.roots}
        after: dict[Key, Raised] = {}
        for key, one in found.items():
            before = self._standing.get(key)
            since = min(one.alarm.since, self._first[key]) if before is None else before.since
            if before is not None or not one.settles or now - self._first[key] >= SETTLED_S * MICRO:
                after[key] = msgspec.structs.replace(one.alarm, since=since)
        for key, before in self._standing.items():
            there = here.get(key.node)
            gone = there is None or (key.root and (key.node, key.root) not in roots)
            if key not in found and not gone and there is not None and not _decided(key.kind, there):
                after[key] = before
        raised = tuple(one for key, one in after.items() if key not in self._standing)
        cleared = tuple(one for key, one in self._standing.items() if key not in after)
        self._standing = after
        return Turn(raised, cleared, self.standing)


def _decided(kind: AlarmKind, node: NodeFacts) -> bool:
    """Say whether what is known of a node now decides about alarms of this kind."""
    if kind is AlarmKind.DRIFTED:
        return True  # the hub's own knowledge
    return node.online if kind is AlarmKind.OFFLINE else node.online and node.heard


def _findings(node: NodeFacts, thresholds: Thresholds, now: int, began: int) -> Iterable[_Found]:
    for root in node.roots:
        yield from _kept_findings(node, root, thresholds, now)
    if not node.online:
        if now - max(node.seen_at, began) > thresholds.offline_s * MICRO:
            yield _Found(_alarm(AlarmKind.OFFLINE, node, node.seen_at, _offline(node.name)))
    elif node.heard:
        for root in node.roots:
            yield from _live_findings(node, root, thresholds, now)
        yield from _node_findings(node, thresholds, now)


def _alarm(kind: AlarmKind, node: NodeFacts, since: int, told: tuple[str, str], root: RootFacts | None = None) -> Raised:
    key = Key(kind, node.id, 0 if root is None else root.id)
    return Raised(key, node.name, "" if root is None else root.name, since, *told)


def _kept_findings(node: NodeFacts, root: RootFacts, thresholds: Thresholds, now: int) -> Iterable[_Found]:
    """Decide on what the hub knows of a root by itself."""
    if root.drifted_at is not None:
        yield _Found(_alarm(AlarmKind.DRIFTED, node, root.drifted_at, _drifted(root.name), root))
    if now > _scan_by(root, thresholds) and (node.heard or root.scanned_at):
        yield _Found(_alarm(AlarmKind.UNSCANNED, node, root.scanned_at or root.created_at, _unscanned(root), root))


def _live_findings(node: NodeFacts, root: RootFacts, thresholds: Thresholds, now: int) -> Iterable[_Found]:
    """Decide on what a root's agent says of it now."""
    if root.activity is RootActivity.MISSING:
        yield _Found(_alarm(AlarmKind.MISSING, node, now, _missing(root.name), root), settles=True)
    elif _waits_too_long(root, thresholds):
        since = now - int((root.age_s or 0) * MICRO)
        yield _Found(_alarm(AlarmKind.BEHIND, node, since, _behind(root, node.name), root), settles=root.age_s is None)


def _node_findings(node: NodeFacts, thresholds: Thresholds, now: int) -> Iterable[_Found]:
    growing = node.growing_since
    if growing is not None and now - growing > thresholds.behind_s * MICRO and not _busy(node):
        yield _Found(_alarm(AlarmKind.BEHIND, node, growing, _growing(node)))
    if node.warnings:
        more = f" ({len(node.warnings) - 1} more)" if len(node.warnings) > 1 else ""
        todo = f"wio node show {node.name} lists all of them; wio-agent status there says more."
        yield _Found(_alarm(AlarmKind.WARNING, node, now, (node.warnings[0] + more, todo)), settles=True)


def _scan_by(root: RootFacts, thresholds: Thresholds) -> int:
    """Return by when a scan should have come to its end."""
    allowed = _TIMES * root.interval or thresholds.unscanned_days * DAY_US
    return (root.scanned_at or root.created_at) + allowed


def _busy(node: NodeFacts) -> bool:
    """Say whether a scan is what brings so many rows."""
    return any(root.activity is RootActivity.SCANNING for root in node.roots)


def _waits_too_long(root: RootFacts, thresholds: Thresholds) -> bool:
    """Say whether changes wait although nothing is being done that will bring them: a scan, or one that has to wait."""
    if root.activity not in {RootActivity.IDLE, RootActivity.FAILING}:
        return False
    return root.age_s is None or root.age_s > thresholds.behind_s


def _drifted(root: str) -> tuple[str, str]:
    return (
        f"What the hub knows of {root} is not what its node knows.",
        f"It is repaired by itself with the next scan, or now: wio root scan {root}.",
    )


def _unscanned(root: RootFacts) -> tuple[str, str]:
    what = "for too long" if root.scanned_at else "yet"
    return (
        f"No scan of {root.name} has come to its end {what}: what nobody reported is not known.",
        f"Begin one: wio root scan {root.name}. Its pace or quiet hours may leave too little time: wio root show {root.name}.",
    )


def _offline(node: str) -> tuple[str, str]:
    return (
        f"{node} is not connected: its files are shown as they were, new keys for it cannot be made, and changes wait.",
        "Look whether wio-agent runs there and reaches the hub: wio-agent status.",
    )


def _missing(root: str) -> tuple[str, str]:
    return (
        f"{root} is not there, or is another one than it was. Nothing of it is taken to be gone.",
        "Look at its bucket. If it was made anew on purpose: wio root retire, then create it again.",
    )


def _behind(root: RootFacts, node: str) -> tuple[str, str]:
    return (
        f"Changes in {root.name} wait for too long: {root.dirty:,} places in it have not been looked at.",
        f"Look at its agent's warnings: wio node show {node}; wio-agent status there says more.",
    )


def _growing(node: NodeFacts) -> tuple[str, str]:
    return (
        f"{node.pending_rows:,} changes of {node.name} are on their way here and become more and more.",
        "Look at the hub's load and at the line between the two; nothing is lost meanwhile.",
    )


def is_behind(*, online: bool, age_s: float | None, activity: RootActivity | None, drifted: bool, indexed: bool = True) -> bool:
    """Say whether a root is not up to date for somebody who searches it."""
    if not indexed:
        return False
    if not online or drifted or age_s is None or age_s > FRESH_S:
        return True
    return activity in {RootActivity.MISSING, RootActivity.FAILING}


def by_node(standing: Iterable[Raised]) -> Mapping[int, tuple[Alarm, ...]]:
    """Return alarms as people see them, by node; the oldest first."""
    found: dict[int, tuple[Alarm, ...]] = {}
    for one in sorted(standing, key=lambda one: (one.since, one.root)):
        found[one.key.node] = (*found.get(one.key.node, ()), one.shown)
    return found
