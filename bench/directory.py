"""DIR: B7 on a directory node: reading and writing with a key of wio, beside the same requests with the gateway's root key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from bench import b7
from bench.figure import Figure
from bench.rig import Rig, fetch_key, s3
from protocol.api import NewRoot, RootKind
from protocol.grants import Permission
from protocol.sealing import ClearCredential

NODE: Final = "nas"


def measure(rig: Rig, *, grants: int = 1, size: int = 1024) -> Figure:
    """Join a directory, share so many workspaces of it with bob, and take turns as B7 does."""
    tree = rig.federation.folder / "tree"
    tree.mkdir()
    agent = rig.federation.directory(NODE, rig.owner, tree)
    rig.alice.create_root(NewRoot(NODE, "archive", RootKind.PRIVATE, "tree"))
    made = [rig.alice.create_workspace(f"nas{number:03}", root=f"{NODE}/archive") for number in range(grants)]
    for one in made:
        rig.alice.share(one.name, "bob", Permission.WRITE)
    place = made[-1]
    key, _ = fetch_key(rig.bob, f"alice/{place.name}")
    found = b7.compared(s3(key), _root_client(agent.state, key), place.bucket, place.prefix, grants=grants, size=size)
    return Figure(
        what=f"directory node, {found.what}",
        unit=found.unit,
        n=found.n,
        p50=found.p50,
        peer="the gateway's root key",
        peer_p50=found.peer_p50,
        ratio=found.ratio,
        scale=found.scale,
    )


def _root_client(state: Path, key: ClearCredential) -> Any:
    """Return S3 as the agent itself, whose key lies in the state directory."""
    settings = json.loads((state / "node.json").read_text())
    secret = json.loads((state / "node.key").read_text())["storage_secret"]
    return s3(ClearCredential(settings["storage"]["access_key"], secret, "", 0, key.endpoint, key.region))
