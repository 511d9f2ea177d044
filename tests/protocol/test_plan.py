"""A plan that an owner edited: what is accepted, and what is said of what is not."""

from __future__ import annotations

import pytest

from protocol.api import RootKind
from protocol.errors import BadInput, WioError
from protocol.grants import Permission
from protocol.messages import IndexLevel
from protocol.plan import Plan, PlannedRoot, PlannedWorkspace, read

GOOD = """
node = "lab3"
[[root]]
name = "lab"
bucket = "lab"
kind = "unmanaged-private"
level = "metadata"
prefix = "in/"
[[root.workspace]]
name = "alice"
folder = "home/alice/"
owner = "alice"
keep = "manage"
public = true
description = "what Alice does"
[[root.workspace]]
name = "alice"
folder = "home/alice-2/"
"""
ROOT = 'node = "lab3"\n[[root]]\nname = "lab"\nbucket = "lab"\nkind = "unmanaged-private"\n'


def ws(name: str = "a", folder: str = "a/", more: str = "") -> str:
    return f'[[root.workspace]]\nname = "{name}"\nfolder = "{folder}"\n{more}\n'


def test_a_plan_is_read_whole() -> None:
    workspaces = (
        PlannedWorkspace("alice", "home/alice/", "alice", Permission.MANAGE, public=True, description="what Alice does"),
        PlannedWorkspace("alice", "home/alice-2/"),
    )
    root = PlannedRoot("lab", "lab", RootKind.UNMANAGED_PRIVATE, "in/", IndexLevel.METADATA, workspaces)
    assert read(GOOD) == Plan("lab3", (root,))
    assert read('node = "lab3"') == Plan("lab3")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node = ", "not TOML"),
        ('node = "lab3"\nnod = 1', "nod"),
        ('node = ""', "node name"),
        ("", "node"),
        (ROOT.replace("unmanaged-private", "private"), "wio would choose"),
        (ROOT.replace("unmanaged-private", "secret"), "secret"),
        (ROOT.replace('bucket = "lab"', 'bucket = "L"'), "bucket name"),
        (ROOT + 'prefix = "no-slash"', "slash"),
        (ROOT + ws() + ws("b", "a/b/"), "never nest"),
        (ROOT + ws() + ws("b", "a/"), "never nest"),
        (ROOT + ws() + ws("a", "b/"), "two workspaces called a"),
        (ROOT + ws("a", ""), "no folder"),
        (ROOT + ws("a", "../x/"), ".."),
        (ROOT + ws("a", "we?rd/"), "policy"),
        (ROOT + ws("a", "a"), "slash"),
        (ROOT + ws("A"), "lower-case"),
        (ROOT + ws(more='owner = "everyone"'), "word of wio"),
        (ROOT + ws(more='keep = "tidy"'), "tidy"),
        (ROOT + ws(more='folders = "x"'), "folders"),
        (ROOT + ROOT[len('node = "lab3"\n') :], "two roots"),
        (ROOT + ROOT[len('node = "lab3"\n') :].replace('name = "lab"', 'name = "b"'), "in one another"),
        ("x" * (17 * 1024 * 1024), "characters"),
    ],
)
def test_a_plan_that_cannot_be_is_explained(text: str, said: str) -> None:
    with pytest.raises(WioError) as error:
        read(text)
    assert isinstance(error.value, BadInput)
    assert said in f"{error.value.message} {error.value.todo}"


def test_two_persons_may_each_have_one_of_a_name() -> None:
    text = ROOT + ws(more='owner = "bob"') + ws("a", "b/", 'owner = "carol"') + ws("a", "c/")
    assert len(read(text).roots[0].workspaces) == 3


def test_a_plan_has_an_end() -> None:
    with pytest.raises(BadInput):
        read(ROOT + "".join(ws(f"w{number}", f"f{number}/") for number in range(10_001)))
