"""GROUP: a change of what a group of 500 people may do, until it is enforced for the 10 of them whose keys are out."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import Final

from bench.figure import Figure, percentile, rounded
from bench.rig import Rig, fetch_key
from protocol.grants import Permission, ReceiptState
from wio.client import Client

MEMBERS: Final = 500
LIVING: Final = 10
ROUNDS: Final = 30


def measure(rig: Rig) -> Figure:
    """Share and change the share, over and over; each answer carries a receipt for everybody who was written to."""
    rig.alice.create_workspace("g1")
    rig.alice.create_group("crowd")
    for number in range(LIVING):
        person = rig.federation.person(f"living{number}")
        rig.alice.add_member("crowd", person.username)
        with Client(rig.federation.hub.url, person.token) as client:
            client.create_workspace("own")
            fetch_key(client, "own")
    _fill(rig, MEMBERS - LIVING - 1)
    took, writes = [], []
    for number in range(ROUNDS):
        wanted = Permission.READ if number % 2 else Permission.WRITE
        began = time.perf_counter()
        change = rig.alice.share("g1", "@crowd", wanted)
        took.append((time.perf_counter() - began) * 1000)
        if not all(one.state is ReceiptState.ENFORCED for one in change.receipts):
            raise AssertionError(f"not enforced: {change}")
        writes.append(len(change.receipts))
    return Figure(
        what="a share with a group, until enforced for all whose keys are out",
        unit="ms",
        n=ROUNDS,
        p50=rounded(percentile(took, 50)),
        p99=rounded(percentile(took, 99)),
        scale={"members": MEMBERS, "living": LIVING, "sets sent": max(writes)},
    )


def _fill(rig: Rig, count: int) -> None:
    """Put people who never asked for a key into the group, as rows: registering each would take a minute."""
    with closing(sqlite3.connect(rig.federation.hub.data / "hub.sqlite", timeout=10)) as database, database:
        [[group]] = database.execute("SELECT id FROM groups WHERE name = 'crowd'").fetchall()
        for number in range(1, count + 1):
            row = (number, f"crowd{number}", f"crowd{number}@lab.example", "-", False, 0)
            database.execute("INSERT INTO users (id, username, email, password, admin, created_at) VALUES (?,?,?,?,?,?)", row)
            database.execute(
                "INSERT INTO group_members (group_id, user_id, manager, since) VALUES (?, ?, 0, 0)", (group, number)
            )
