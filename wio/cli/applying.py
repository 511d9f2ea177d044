"""``wio root apply``: make the roots and workspaces of a plan, for folders that are there already.

Every step is taken by itself and may be taken again: what is there already is left as it is, so a plan that stopped in the
middle, or was edited since, is simply applied once more.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from protocol import plan as plans
from protocol.api import NewRoot, Workspace
from protocol.errors import BadInput, Conflict, Overlap, StorageRefused, UnknownRoot, WioError
from protocol.names import shown
from protocol.plan import Plan, PlannedRoot, PlannedWorkspace
from wio.cli import here, output
from wio.cli.output import Json
from wio.cli.words import count, safe

if TYPE_CHECKING:
    from wio.client import Client

FILE: Final = "The plan: what wio-agent roots suggest wrote, edited; - for standard input."


class Did(enum.StrEnum):
    """What became of one thing of a plan."""

    WOULD = "would be made"
    MADE = "made"
    THERE = "there already"
    HANDED = "handed over"
    FAILED = "failed"


class Step(msgspec.Struct, frozen=True):
    """One thing of a plan: a root (``node/root``) or a workspace (``owner/name``), and what became of it."""

    what: str
    did: Did
    where: str
    problem: str = ""


def apply(
    file: Annotated[str, typer.Argument(metavar="FILE", help=FILE, show_default=False)],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing: say what would be made.")] = False,
    json: Json = False,
) -> None:
    """Make the roots and workspaces of a plan. Folders stay where they lie; applying it again is harmless."""
    plan = plans.read(_text(file))
    steps = []
    with here.session() as session:
        for step in Applying(session.client, plan, dry_run=dry_run).steps():
            steps.append(step)
            if not json:
                _say(step)
    if json:
        output.value(steps)
    failed = [step for step in steps if step.did is Did.FAILED]
    if failed:
        raise StorageRefused(
            f"{count(len(failed), 'thing')} of the plan could not be done.", todo="Read above why, edit it, apply it again."
        )
    if not json and not dry_run:
        for root in plan.roots:
            output.note(f"Import what is in it: wio root scan {plan.node}/{root.name}")


class Applying:
    """One plan being applied, a step at a time."""

    def __init__(self, client: Client, plan: Plan, *, dry_run: bool) -> None:
        self._client = client
        self._plan = plan
        self._dry_run = dry_run
        self._me = client.me().username
        known = client.workspaces("all")
        self._there = {(one.node, one.root, one.prefix): one for one in known}
        self._names = {one.name for one in known if one.owner == self._me}

    def steps(self) -> Iterator[Step]:
        """Take the plan's steps one by one and say of each what became of it."""
        for planned in self._plan.roots:
            step = self._root(planned)
            yield step
            if step.did is not Did.FAILED:
                for workspace in planned.workspaces:
                    yield self._workspace(planned, workspace)

    def _root(self, planned: PlannedRoot) -> Step:
        node = self._plan.node
        address, where = f"{node}/{planned.name}", f"{planned.bucket}/{planned.prefix}"
        try:
            try:
                root = self._client.root(node, planned.name)
            except UnknownRoot:
                if self._dry_run:
                    return Step(address, Did.WOULD, where)
                new = NewRoot(node, planned.name, planned.kind, planned.bucket, planned.prefix, level=planned.level)
                self._client.create_root(new)
                return Step(address, Did.MADE, where)
            if (root.bucket, root.prefix, root.kind) != (planned.bucket, planned.prefix, planned.kind):
                raise Conflict(
                    f"Root {address} is there, and another one: {root.kind.value}, {root.bucket}/{root.prefix}.",
                    todo="Give the one in the plan another name.",
                )
        except WioError as error:
            return _failed(address, where, error)
        return Step(address, Did.THERE, where)

    def _workspace(self, planned: PlannedRoot, asked: PlannedWorkspace) -> Step:
        owner, prefix = asked.owner or self._me, planned.prefix + asked.folder
        address, where = f"{owner}/{asked.name}", f"{planned.bucket}/{prefix}"
        there = self._there.get((self._plan.node, planned.name, prefix))
        if there is None and asked.name in self._names:
            problem = f"You have a workspace called {asked.name} already. Choose another name, or hand that one over first."
            return Step(address, Did.FAILED, where, problem)
        if self._dry_run:
            return Step(address, Did.WOULD if there is None else Did.THERE, where)
        did = Did.THERE
        try:
            if there is None:
                there = self._made(planned, asked, owner)
                did = Did.MADE
            if there is not None and there.owner == self._me and owner != self._me:
                self._client.hand_over(f"{self._me}/{there.name}", owner, keep=asked.keep)
                did = Did.HANDED
        except WioError as error:
            return _failed(address, where, error, f"It is {self._me}/{asked.name} for now. " if did is Did.MADE else "")
        if there is None:
            return Step(address, Did.THERE, where)
        if there.owner == owner == self._me:
            self._names.add(there.name)
        return Step(address, did, where)

    def _made(self, planned: PlannedRoot, asked: PlannedWorkspace, owner: str) -> Workspace | None:
        """Make a workspace; None where it was handed over before, to somebody who does not let us see it."""
        try:
            return self._client.create_workspace(
                asked.name,
                root=f"{self._plan.node}/{planned.name}",
                public=asked.public,
                description=asked.description,
                folder=asked.folder,
            )
        except Overlap as error:
            if owner == self._me or shown(asked.folder) not in error.message.partition(" overlaps ")[2]:
                raise
            return None


def _failed(what: str, where: str, error: WioError, before: str = "") -> Step:
    return Step(what, Did.FAILED, where, f"{before}{error.message} {error.todo}".strip())


def _say(step: Step) -> None:
    output.line(
        f"{safe(step.what)}: {step.did.value}, {safe(step.where)}" + (f". {safe(step.problem)}" if step.problem else "")
    )


def _text(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read(plans.MAX_PLAN + 1)
        with Path(file).open(encoding="utf-8") as opened:
            return opened.read(plans.MAX_PLAN + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"The plan {safe(file)} cannot be read.") from error
