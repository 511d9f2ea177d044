"""Shells complete commands, workspaces, paths and people: the real shells, a real hub."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest

from bench.rig import Rig
from deploy.federation import BIN, Person
from deploy.running import until
from protocol.grants import Permission

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def alice(rig: Rig) -> Person:
    """alice, with a workspace of two folders and a file, shared with bob."""
    rig.alice.create_workspace("scans")
    rig.alice.create_workspace("scores")
    rig.alice.share("scans", "bob", Permission.READ)
    place = rig.alice.workspace("scans")
    for key in ("sub-014/T1w.nii", "sub-015/T1w.nii", "read me.txt"):
        rig.root_client().put_object(Bucket=place.bucket, Key=f"{place.prefix}{key}", Body=b"x")
    until("three files in the index", lambda: rig.alice.workspace("scans").objects == 3)
    return rig.federation.person("alice")


def in_bash(person: Person, *words: str) -> list[str]:
    """Return what bash offers for the last word."""
    script = person.wio("completion", "bash").good().out
    asked = f'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); {script}\n_wio wio 2>/dev/null; printf "%s\\n" "${{COMPREPLY[@]}}"'
    return _lines(person, "bash", "--norc", "-c", asked, "bash", *words)


def in_fish(person: Person, *words: str) -> list[str]:
    """Return what fish offers for the last word."""
    script = person.wio("completion", "fish").good().out
    line = " ".join(words)
    found = _lines(person, "fish", "--no-config", "-c", f"{script}\ncomplete -C '{line}'")
    return [one.partition("\t")[0] for one in found]


def _lines(person: Person, *command: str) -> list[str]:
    environment = {"PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin", "HOME": str(person.folder), **person.environment}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return sorted(filter(None, said.stdout.splitlines()))


@pytest.mark.parametrize("shell", [in_bash, in_fish])
def test_commands_workspaces_paths_and_people_are_completed(alice: Person, shell: Callable[..., list[str]]) -> None:
    if shell is in_fish and not shutil.which("fish"):
        pytest.skip("fish is not installed: apt-get install fish")
    assert shell(alice, "wio", "pres") == ["presign"]
    assert shell(alice, "wio", "ls", "sc") == ["scans/", "scores/"]
    assert shell(alice, "wio", "ls", "scans/sub") == ["scans/sub-014/", "scans/sub-015/"]
    assert shell(alice, "wio", "get", "alice/scans/sub-014/") == ["alice/scans/sub-014/T1w.nii"]
    assert shell(alice, "wio", "share", "sco") == ["scores"]
    assert shell(alice, "wio", "share", "scores", "pu") == ["public"]
    assert shell(alice, "wio", "mc", "cp", "./x", "scans/sub-01") == ["scans/sub-014/", "scans/sub-015/"]
    assert shell(alice, "wio", "node", "show", "la") == ["lab3"]


def test_what_somebody_else_shares_is_completed_under_their_name(rig: Rig, alice: Person) -> None:
    assert rig.alice.workspace("scans").owner == alice.username
    assert in_bash(rig.federation.person("bob"), "wio", "ls", "alice/sc") == ["alice/scans/"]


def test_where_the_hub_cannot_be_asked_nothing_is_offered_and_nothing_is_said(alice: Person) -> None:
    nobody = Person("http://127.0.0.1:9", "nobody", alice.folder / "nobody")
    assert in_bash(nobody, "wio", "ls", "sc") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_one_that_its_shell_can_read(alice: Person, shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed: apt-get install {shell}")
    script = alice.wio("completion", shell).good().out
    subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=60)
