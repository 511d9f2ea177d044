"""An existing tree becomes roots and workspaces: suggested, edited, tried, applied, imported; with the commands, for real."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.rig import Rig
from deploy.federation import Agent, Federation, Said
from deploy.programs import provide
from deploy.running import until

pytestmark = pytest.mark.real

FILES = ("home/alice/a.txt", "home/bob/b.txt", "home/bob/deep/c.txt", "projects/mri/d.nii", "projects/eeg/e.edf", "old/f")


class Served:
    """A directory node ``nas`` of alice's, over a tree that was there before."""

    def __init__(self, rig: Rig) -> None:
        federation: Federation = rig.federation
        self.rig = rig
        self.tree = federation.folder / "lab"
        for key in FILES:
            (self.tree / key).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / key).write_text(key)
        self.alice = federation.person("alice")
        self.plan = federation.folder / "plan.toml"
        self.agent = Agent("nas", federation.folder / "agent-nas")
        invitation = self.alice.wio("node", "invite", "nas", "--json").good().json
        self.agent.ask("join", "-", "--directory", str(self.tree), stdin=invitation["join_string"]).good()
        federation.agents["nas"] = self.agent
        self.agent.start()
        federation.wait_online("nas", self.alice)

    def apply(self, *options: str) -> Said:
        """Apply the plan as alice, on the node's machine."""
        return self.agent.ask("roots", "apply", self.plan, *options, environment=self.alice.environment)


@pytest.fixture(scope="module")
def served(rig: Rig) -> Iterator[Served]:
    before = os.environ.get("WIO_VERSITYGW")
    os.environ["WIO_VERSITYGW"] = str(provide("versitygw"))
    try:
        yield Served(rig)
    finally:
        if before is None:
            del os.environ["WIO_VERSITYGW"]
        else:
            os.environ["WIO_VERSITYGW"] = before


def test_a_tree_is_suggested_edited_tried_applied_and_imported(served: Served, rig: Rig) -> None:
    alice, bob = served.alice, rig.federation.person("bob")
    suggested = served.agent.ask("roots", "suggest").good().out
    assert 'node = "nas"' in suggested
    edited = suggested.replace('# owner = "bob"', 'owner = "bob"').replace('name = "old"', 'name = "attic"')
    served.plan.write_text(edited)

    tried = served.apply("--dry-run").good().out
    assert "nas/lab: would be made" in tried
    assert "bob/bob: would be made, lab/home/bob/" in tried
    assert alice.wio("root", "show", "nas/lab").code == 3, "nothing was made"

    applied = served.apply().good().out
    assert "nas/lab: made" in applied
    assert "alice/attic: made, lab/old/" in applied
    assert "bob/bob: handed over, lab/home/bob/" in applied
    owned = bob.wio("workspace", "ls", "--mine", "--json").good().json
    assert [(one["name"], one["bucket"], one["prefix"]) for one in owned] == [("bob", "lab", "home/bob/")]

    again = served.apply("--json").good().json
    assert {one["did"] for one in again} == {"there already"}
    assert alice.wio("root", "apply", served.plan, "--dry-run").good().out.count("there already") >= 4

    alice.wio("root", "scan", "nas/lab").good()
    until("bob's files found", lambda: "b.txt" in bob.wio("find", "b.txt").out)
    assert "d.nii" in alice.wio("find", "d.nii").good().out
    assert "b.txt" not in alice.wio("find", "b.txt").out, "alice kept nothing of bob's"
    assert {str(path.relative_to(served.tree)) for path in served.tree.rglob("*") if path.is_file()} == set(FILES)


def test_a_plan_that_does_not_fit_the_tree_makes_nothing(served: Served) -> None:
    served.plan.write_text(
        'node = "nas"\n[[root]]\nname = "more"\nbucket = "lab"\nprefix = "nowhere/"\nkind = "unmanaged-private"\n'
    )
    said = served.apply()
    assert said.code == 2
    assert "not there" in said.err
    assert served.alice.wio("root", "show", "nas/more").code == 3


def test_what_cannot_be_done_is_said_and_the_rest_is_done(served: Served) -> None:
    """Somebody without an account: the workspace is there, and goes to them when the plan is applied again."""
    for name in ("carl", "dora"):
        (served.tree / "later" / name).mkdir(parents=True, exist_ok=True)
    plan = 'node = "nas"\n[[root]]\nname = "lab"\nbucket = "lab"\nkind = "unmanaged-private"\n'
    plan += '[[root.workspace]]\nname = "carls"\nfolder = "later/carl/"\nowner = "carl"\n'
    plan += '[[root.workspace]]\nname = "doras"\nfolder = "later/dora/"\n'
    served.plan.write_text(plan)
    said = served.apply()
    assert said.code == 1
    assert "carl/carls: failed" in said.out
    assert "It is alice/carls for now" in said.out
    assert "nobody called" in said.out
    assert "alice/doras: made" in said.out
    served.rig.federation.person("carl")
    assert "carl/carls: handed over" in served.apply().good().out
    wrong = plan.replace('kind = "unmanaged-private"', 'kind = "unmanaged-public"')
    served.plan.write_text(wrong)
    assert "and another one" in served.apply().out


def test_the_program_of_a_person_alone_takes_a_plan_too(served: Served, tmp_path: Path) -> None:
    plan = served.plan.read_text().replace("unmanaged-public", "unmanaged-private")
    said = served.alice.wio("root", "apply", "-", stdin=plan).good()
    assert "alice/doras: there already" in said.out
    bob = served.rig.federation.person("bob")
    plan = plan.replace('name = "lab"', 'name = "bobs"').replace("later/", "again/")
    (tmp_path / "p").write_text(plan)
    refused = bob.wio("root", "apply", tmp_path / "p")
    assert refused.code == 1
    assert "nas/bobs: failed" in refused.out
