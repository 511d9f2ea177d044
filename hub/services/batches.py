"""What a batch of journal rows changes: decisions apart from the transaction that carries them out.

``judge`` says whether a batch fits where the journal stands. A ``Sheet`` is one transaction's working copy: what is there
is read once, rows are worked into it one after the other, and what has changed is written with a few statements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.db import catalogue, journals, proofs
from hub.db import fields as fields_rows
from hub.db.catalogue import Address, Entry, Totals
from hub.db.database import Database
from hub.db.fields import FieldsRow
from hub.db.journals import NOTHING, RootTotals
from protocol.digest import EMPTY_RUN, MODULUS, object_number
from protocol.fields import Fields, pack, unpack
from protocol.messages import Ack, Change, Cursor, Events, IndexLevel, Nak, Row

NOTHING_READ = pack(Fields())
"""What an agent says of an object in which it finds nothing any more."""


class Verdict(msgspec.Struct, frozen=True):
    """A batch, or its tail, that fits: these rows take the journal from ``before`` to ``after``."""

    rows: Sequence[Row]
    before: Cursor
    after: Cursor
    fresh: bool
    """Whether a new generation begins."""


def no_journals(cursor: Cursor) -> Cursor:
    """Return a cursor that fits no journal, whoever reads it: its agent starts a new generation."""
    return Cursor(cursor.generation, cursor.sequence, b"\xff" * 32)


def judge(cursor: Cursor, events: Events) -> Verdict | Ack | Nak:
    """Say what becomes of a batch where the journal stands at ``cursor``. The running hash is not checked here."""
    if events.generation < cursor.generation:
        return Nak(cursor, f"Generation {events.generation} is over: the hub knows {cursor.generation}.")
    before = cursor if events.generation == cursor.generation else Cursor(events.generation, 0, EMPTY_RUN)
    if events.first > before.sequence:
        return Nak(cursor, f"Row {events.first} of generation {events.generation} came, {before.sequence} was due.")
    end = events.first + len(events.rows)
    if end < before.sequence:
        return Ack(cursor)
    if end == before.sequence and before is cursor:
        if events.running == cursor.running:
            return Ack(cursor)
        return Nak(no_journals(cursor), "These row numbers were used for other rows: start a new generation.")
    after = Cursor(events.generation, end, events.running)
    return Verdict(events.rows[before.sequence - events.first :], before, after, before is not cursor)


def folders_above(keys: Iterable[Address]) -> set[Address]:
    """Return every prefix, ending in ``/``, that any of these keys has: where a workspace of theirs may lie."""
    lowest = {(root, key[: key.rfind("/") + 1]) for root, key in keys}
    found: set[Address] = set()
    for root, folder in lowest:
        above = folder
        while above and (root, above) not in found:
            found.add((root, above))
            above = above[: above.rfind("/", 0, -1) + 1]
    return found


def known_at(level: IndexLevel, body: bytes) -> tuple[bytes, bool]:
    """Return what of an object's fields the hub keeps at an index level, and whether there was a problem with it.

    Raises BadMessage.
    """
    found = unpack(body)
    if found.text and level is not IndexLevel.CONTENT:
        body = pack(msgspec.structs.replace(found, text=""))
    return body, bool(found.problem)


class Sheet:
    """One transaction's working copy of cursors, roots and entries. ``now`` in Unix microseconds."""

    def __init__(self, connection: AsyncConnection, now: int) -> None:
        self.connection = connection
        self.now = now
        self.roots: dict[int, RootTotals] = {}
        self.scans: dict[int, bytes] = {}
        self.drifts: dict[int, str] = {}
        self.agreed: set[int] = set()
        self.touched = False
        self.moved: set[int] = set()
        """Roots whose totals, or those of workspaces in them, were written."""
        self._cursors: dict[int, Cursor] = {}
        self._moved: dict[int, Cursor] = {}
        self._entries: dict[Address, Entry] = {}
        self._written: dict[Address, Entry] = {}
        self._fields: dict[Address, FieldsRow | None] = {}
        """What is to be written beside entries; None: nothing was read out of that object as it is now."""
        self._homes: dict[Address, int] = {}
        self._folders: dict[Address, int] = {}
        self._workspaces: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
        self._as_read: dict[int, RootTotals] = {}
        self._revision = 0

    # -------------------------------------------------------------------------------------------------- reading

    async def open(self, roots: Iterable[int], nodes: Iterable[int]) -> None:
        """Read and hold what the batches of these nodes speak of."""
        self.roots = await journals.root_totals(self.connection, roots)
        self._as_read = {one.id: msgspec.structs.replace(one) for one in self.roots.values()}
        self._cursors = await journals.cursors(self.connection, nodes)

    async def load(self, rows: Sequence[Row]) -> None:
        """Read the entries and workspaces that these rows may change, and take revisions for them."""
        ignored = {root: self.ignores(root) for root in {row.root for row in rows}}
        addresses = list({(row.root, row.key) for row in rows if not ignored[row.root]})
        if not addresses:
            return
        self._revision = await Database.take_revisions(self.connection, len(rows))
        self._entries = await catalogue.stored(self.connection, addresses)
        self._homes = await catalogue.homes(self.connection, folders_above(addresses))

    def owns(self, node: int, root: int) -> bool:
        """Say whether this root may be spoken of by this node; a root nobody has may be."""
        found = self.roots.get(root)
        return found is None or found.node_id == node

    def ignores(self, root: int) -> bool:
        """Say whether rows of this root are not for the catalogue: it is unknown, retired or not to be indexed here."""
        found = self.roots.get(root)
        return found is None or found.retired or found.level in {IndexLevel.NONE, IndexLevel.LOCAL}

    def reads(self, root: int) -> bool:
        """Say whether the hub may know what lies in the objects of this root."""
        return self.roots[root].level in {IndexLevel.METADATA, IndexLevel.CONTENT}

    def cursor(self, node: int) -> Cursor:
        """Return where this node's journal stands."""
        return self._moved.get(node) or self._cursors.get(node, NOTHING)

    # -------------------------------------------------------------------------------------------------- working

    def move(self, node: int, cursor: Cursor) -> None:
        """Move a cursor."""
        self._moved[node] = cursor

    def take(self, rows: Sequence[Row], generation: int) -> None:
        """Work rows in, in their order."""
        ignored = {root: self.ignores(root) for root in {row.root for row in rows}}
        for row in rows:
            if not ignored[row.root]:
                self._take(row, generation)

    def _take(self, row: Row, generation: int) -> None:
        address = (row.root, row.key)
        before = self._entries.get(address)
        live = None if before is None or before.gone else before
        if row.change is Change.FIELDS:
            self._read_out(row, live)
            return
        if row.change is Change.DELETE:
            if live is not None:
                self._put(live._replace(gone=True, actor_id=row.actor, revision=self._next(), generation=generation))
            return
        content = (row.size, row.mtime, row.etag)
        home = self._home(row.root, row.key)
        if live is not None and live.content == content and live.workspace_id == home:
            actor = row.actor or live.actor_id
            if (live.generation, live.actor_id) != (generation, actor):
                # Confirmed, not changed: the search index need not hear of it.
                self._entries[address] = self._written[address] = live._replace(generation=generation, actor_id=actor)
            return
        self._put(Entry(row.root, row.key, home, *content, row.actor, self._next(), False, generation))

    def _read_out(self, row: Row, live: Entry | None) -> None:
        """Keep what was read out of the object that is there, and let the search index know; of any other it says nothing."""
        root = self.roots[row.root]
        if live is None or live.content != (row.size, row.mtime, row.etag) or not self.reads(row.root):
            return
        address = (row.root, row.key)
        if row.fields == NOTHING_READ:
            self._fields[address] = None
        else:
            body, problem = known_at(root.level, row.fields)
            self._fields[address] = FieldsRow(row.root, row.key, row.size, row.mtime, row.etag, body, problem)
        self._entries[address] = self._written[address] = live._replace(revision=self._next())
        self.touched = True

    async def drop(self, entries: Sequence[Entry], generation: int) -> None:
        """Make tombstones of these entries."""
        kept, self._revision = self._revision, await Database.take_revisions(self.connection, len(entries))
        for entry in entries:
            self._entries[entry.root_id, entry.key] = entry
            self._put(entry._replace(gone=True, actor_id=0, revision=self._next(), generation=generation))
        self._revision = kept  # for the rows that are still to come

    def _next(self) -> int:
        self._revision += 1
        return self._revision - 1

    def _home(self, root: int, key: str) -> int:
        """Return the workspace a key belongs to: the one whose prefix it has, as they never nest; 0 for none."""
        folder = key[: key.rfind("/") + 1]
        found = self._folders.get((root, folder))
        if found is None:
            found, above = 0, folder
            while above and not found:
                found = self._homes.get((root, above), 0)
                above = above[: above.rfind("/", 0, -1) + 1]
            self._folders[root, folder] = found
        return found

    def _put(self, entry: Entry) -> None:
        """Put an entry in the place of what is there, and count what that changes."""
        address = (entry.root_id, entry.key)
        before = self._entries.get(address)
        root = self.roots[entry.root_id]
        if before is not None and not before.gone:
            self._count(root, before, -1)
            if (entry.gone or before.content != entry.content) and self.reads(entry.root_id):
                self._fields[address] = None
        if not entry.gone:
            self._count(root, entry, 1)
        self._entries[address] = self._written[address] = entry
        self.touched = True

    def _count(self, root: RootTotals, entry: Entry, sign: int) -> None:
        """Let an entry come (1) or go (-1) in the totals. Spelt out: it is run for every row of an import."""
        size = entry.size
        root.digest = (root.digest + sign * object_number(entry.key, size, entry.mtime, entry.etag)) % MODULUS
        root.objects += sign
        root.bytes += sign * size
        workspace = self._workspaces[entry.workspace_id]
        workspace[0] += sign
        workspace[1] += sign * size

    # -------------------------------------------------------------------------------------------------- writing

    async def flush(self) -> None:
        """Write what has changed so far."""
        await catalogue.store(self.connection, list(self._written.values()))
        await fields_rows.remove(self.connection, [address for address, row in self._fields.items() if row is None])
        await fields_rows.store(self.connection, [row for row in self._fields.values() if row is not None])
        await catalogue.add_to_workspaces(self.connection, {at: Totals(*both) for at, both in self._workspaces.items()})
        changed = [one for one in self.roots.values() if one != self._as_read[one.id]]
        await journals.set_root_totals(self.connection, changed)
        self.moved |= {one.id for one in changed}
        await journals.set_scans(self.connection, self.scans)
        await proofs.note_drift(self.connection, dict.fromkeys(self.agreed) | dict.fromkeys(self.drifts, self.now))
        await journals.move(self.connection, self._moved, self._cursors)
        self._as_read = {one.id: msgspec.structs.replace(one) for one in self.roots.values()}
        self._cursors |= self._moved
        self._written, self._workspaces, self._moved = {}, defaultdict(lambda: [0, 0]), {}
        self._fields = {}
        self.scans = {}
