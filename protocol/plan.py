"""A plan of roots and workspaces for folders that are there already: proposed by an agent, edited by an owner, applied by wio.

A TOML file, because a person edits it. Reading it changes nothing; what it says is checked here as far as it can be without
a tree or a hub.
"""

from __future__ import annotations

import tomllib
from typing import Final

import msgspec

from protocol.api import RootKind
from protocol.errors import BadInput, BadName
from protocol.grants import Permission
from protocol.messages import IndexLevel
from protocol.names import check_bucket, check_name, check_prefix, overlaps, shown

MAX_ROOTS: Final = 100
MAX_WORKSPACES: Final = 10_000
MAX_PLAN: Final = 16 * 1024 * 1024
"""Bytes of a plan's file."""


class PlannedWorkspace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder of a root that becomes a workspace where it lies. ``folder`` ends in a slash."""

    name: str
    folder: str
    owner: str = ""
    """Whose it will be; empty: whoever applies the plan."""
    keep: Permission | None = None
    """What whoever applies it may do in it still, once it is somebody else's."""
    public: bool = False
    description: str = ""


class PlannedRoot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A root of the kind that leaves folders where they are."""

    name: str
    bucket: str
    kind: RootKind
    prefix: str = ""
    level: IndexLevel = IndexLevel.NAMES
    workspaces: tuple[PlannedWorkspace, ...] = msgspec.field(default=(), name="workspace")


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be made on one node."""

    node: str
    roots: tuple[PlannedRoot, ...] = msgspec.field(default=(), name="root")


def read(text: str) -> Plan:
    """Read a plan and check it. Raises BadInput, BadName: with where, and what was expected."""
    if len(text) > MAX_PLAN:
        raise BadInput(f"The plan has more than {MAX_PLAN:,} characters.")
    try:
        plan = msgspec.convert(tomllib.loads(text), Plan)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"The plan is not TOML: {error}.") from None
    except msgspec.ValidationError as error:
        raise BadInput(
            f"The plan says what cannot be: {error}.", todo="wio-agent roots suggest shows what it looks like."
        ) from None
    return check(plan)


def check(plan: Plan) -> Plan:
    """Return the plan if all of it could be; raise BadInput or BadName for the first thing that could not."""
    check_name(plan.node, "node")
    if len(plan.roots) > MAX_ROOTS:
        raise BadInput(f"The plan has {len(plan.roots)} roots; {MAX_ROOTS} are allowed.")
    if sum(len(root.workspaces) for root in plan.roots) > MAX_WORKSPACES:
        raise BadInput(f"The plan has more than {MAX_WORKSPACES:,} workspaces.")
    names: set[tuple[str, str]] = set()
    for number, root in enumerate(plan.roots):
        _check_root(root)
        for other in plan.roots[:number]:
            if other.name == root.name:
                raise BadInput(f"The plan has two roots called {root.name}.")
            if other.bucket == root.bucket and overlaps(other.prefix, root.prefix):
                raise BadInput(f"The roots {other.name} and {root.name} lie in one another.", todo="Roots never nest.")
        for workspace in root.workspaces:
            named = (workspace.owner, workspace.name)
            if named in names:
                whose = workspace.owner or "you"
                raise BadInput(f"The plan has two workspaces called {workspace.name} for {whose}.", todo="Rename one.")
            names.add(named)
    return plan


def _check_root(root: PlannedRoot) -> None:
    check_name(root.name, "root")
    check_bucket(root.bucket)
    check_prefix(root.prefix)
    if root.kind.managed:
        raise BadInput(
            f"Root {root.name} is {root.kind.value}: wio would choose its folders.",
            todo=f"Say {RootKind.UNMANAGED_PRIVATE.value} or {RootKind.UNMANAGED_PUBLIC.value}.",
        )
    before: PlannedWorkspace | None = None
    for workspace in sorted(root.workspaces, key=lambda one: one.folder):
        check_name(workspace.name, "workspace")
        if workspace.owner:
            check_name(workspace.owner, "user")
        if workspace.keep is Permission.TIDY:
            raise BadInput(f"tidy cannot be kept of {workspace.name}.", todo="Keep read, drop, write or manage.")
        if workspace.folder == "":
            raise BadName(f"Workspace {workspace.name} has no folder.", todo="Give the root a prefix, and it a folder below.")
        check_prefix(workspace.folder)
        check_prefix(root.prefix + workspace.folder)
        if before is not None and workspace.folder.startswith(before.folder):
            raise BadInput(
                f"{shown(workspace.folder)} lies in {shown(before.folder)}: workspaces never nest.", todo="Leave one out."
            )
        before = workspace
