"""What a person does every day at a terminal: fetch, send, watch, look at what is wrong, read the manual. All of it real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from bench.rig import Rig
from deploy.federation import BIN, Person
from deploy.running import free_port, until
from protocol.errors import BadCursor, UnknownWorkspace
from protocol.grants import Permission

pytestmark = pytest.mark.real

FILES = {"a.txt": b"a", "sub/b ü.bin": bytes(range(256)) * 5000, "sub/deep/empty": b""}


@pytest.fixture
def alice(rig: Rig) -> Person:
    return rig.federation.person("alice")


@pytest.fixture
def scans(rig: Rig) -> str:
    """A workspace of alice's, of the test's own."""
    name = f"scans-{uuid4().hex[:8]}"
    rig.alice.create_workspace(name)
    return name


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A folder with some files."""
    for name, content in FILES.items():
        path = tmp_path / "up" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "up"


def below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------------ get, put


def test_a_folder_goes_up_and_comes_back_as_it_was(alice: Person, scans: str, local: Path, tmp_path: Path) -> None:
    sent = alice.wio("put", f"{local}/", f"{scans}/", "--json").good().json
    back = tmp_path / "back"
    back.mkdir()
    alice.wio("get", f"{scans}/", back).good()
    [found] = [folder for folder in (back, *back.iterdir()) if folder.is_dir() and (folder / "a.txt").exists()]
    assert below(found) == FILES
    assert sent["files"] == len(FILES)


def test_one_file_goes_to_the_name_that_was_asked_for_and_nothing_is_left_of_one_that_is_not_there(
    alice: Person, scans: str, local: Path, tmp_path: Path
) -> None:
    alice.wio("put", local / "a.txt", f"{scans}/other name.txt").good()
    alice.wio("get", f"{scans}/other name.txt", tmp_path / "here.txt").good()
    assert (tmp_path / "here.txt").read_bytes() == b"a"
    said = alice.wio("get", f"{scans}/none.txt", tmp_path / "none.txt")
    assert said.code == 3, said.err
    assert "none.txt" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.txt", "up"]


def test_what_is_there_already_is_left_out_when_it_goes_on(alice: Person, scans: str, local: Path) -> None:
    alice.wio("put", f"{local}/", f"{scans}/").good()
    (local / "new.txt").write_bytes(b"new")
    again = alice.wio("put", f"{local}/", f"{scans}/", "--resume", "--json").good().json
    assert (again["files"], again["skipped"]) == (1, len(FILES))


def test_who_may_only_read_fetches_but_is_told_that_sending_is_not_open_to_them(
    rig: Rig, alice: Person, scans: str, local: Path, tmp_path: Path
) -> None:
    bob = rig.federation.person("bob")
    alice.wio("put", local / "a.txt", f"{scans}/").good()
    rig.alice.share(scans, "bob", Permission.READ)
    bob.wio("get", f"alice/{scans}/a.txt", tmp_path / "bobs.txt").good()
    assert (tmp_path / "bobs.txt").read_bytes() == b"a"
    said = bob.wio("put", local / "a.txt", f"alice/{scans}/b.txt")
    assert said.code == 4, said.err
    assert rig.alice.workspace(scans).permission is Permission.MANAGE


# ------------------------------------------------------------------------------------------------------ watch


def _hear() -> None:
    """Have Ctrl-C heard also where whoever starts the tests ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("command", [("watch",), ("mc", "watch")])
def test_what_is_written_and_removed_is_shown_as_it_happens_until_ctrl_c(
    rig: Rig, alice: Person, scans: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    place, s3 = rig.alice.workspace(scans), rig.root_client()
    out = tmp_path / "out"
    with out.open("wb") as target:
        running = subprocess.Popen(
            [BIN / "wio", *command, "--json", f"{scans}/"],
            env=os.environ | alice.environment,
            stdout=target,
            stderr=subprocess.PIPE,
            preexec_fn=_hear,  # noqa: PLW1509 - nothing is held here that it could wait for
        )
    try:

        def seen_first() -> bool:  # it watches from when it has begun: written until it says so
            s3.put_object(Bucket=place.bucket, Key=f"{place.prefix}first", Body=uuid4().bytes)
            return b"first" in out.read_bytes()

        until("the first change is shown", seen_first, seconds=20, every=0.3)
        s3.put_object(Bucket=place.bucket, Key=f"{place.prefix}brief", Body=b"x")
        until("it is shown", lambda: b"/brief" in out.read_bytes())
        s3.delete_object(Bucket=place.bucket, Key=f"{place.prefix}brief")
        until("its end is shown", lambda: out.read_bytes().count(b"/brief") >= 2)
    finally:
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=30)
    assert b"Traceback" not in said
    assert running.returncode in {0, 130}
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows


def test_nobody_is_told_of_changes_in_what_they_may_not_read(rig: Rig, scans: str) -> None:
    place = rig.alice.workspace(scans)
    hers, his = rig.alice.changes().after, rig.bob.changes().after
    rig.root_client().put_object(Bucket=place.bucket, Key=f"{place.prefix}secret", Body=b"x")

    def of_this(changes: object) -> bool:
        return scans in str(changes)

    told = rig.alice.changes(after=hers, wait=20)
    while not of_this(told):
        told = rig.alice.changes(after=told.after, wait=20)
    assert not of_this(rig.bob.changes(after=his, wait=0))
    with pytest.raises(UnknownWorkspace):
        rig.bob.changes(f"alice/{scans}")
    with pytest.raises(BadCursor):
        rig.bob.changes(after=told.after, wait=0)  # a position belongs to whoever got it


# ------------------------------------------------------------------------------------------------------ doctor, man


def test_a_doctor_finds_nothing_wrong_where_nothing_is(alice: Person, scans: str) -> None:
    said = alice.wio("doctor", "--json")
    wrong = [one for one in said.json["findings"] if one["verdict"] == "wrong"]
    assert wrong == []
    assert said.code == 0
    parts = {one["part"] for one in said.json["findings"]}
    assert parts >= {"you", "hub"}
    assert any("lab3" in part for part in parts), scans


def test_a_doctor_says_what_is_wrong_and_what_to_do(rig: Rig, alice: Person, tmp_path: Path) -> None:
    away = Person(f"http://127.0.0.1:{free_port()}", "alice", alice.folder)
    away.environment["WIO_TOKEN"] = alice.token
    nobody = Person(rig.federation.hub.url, "nobody", tmp_path / "nobody")
    stale = Person(rig.federation.hub.url, "alice", alice.folder)
    stale.environment["WIO_TOKEN"] = "wio_" + "x" * 40
    for person, what in ((away, "connection"), (nobody, "sign-in"), (stale, "token")):
        said = person.wio("doctor", "--json")
        wrong = [one for one in said.json["findings"] if one["verdict"] == "wrong"]
        assert what in {one["what"] for one in wrong}, (what, said.out)
        assert all(one["todo"] for one in wrong), wrong
        assert said.code == 1


def test_settings_that_others_can_read_are_found(rig: Rig, tmp_path: Path) -> None:
    person = Person(rig.federation.hub.url, f"open{uuid4().hex[:6]}", tmp_path / "open").register()
    (person.folder / "config.json").chmod(0o644)
    said = person.wio("doctor", "--json")
    assert any("config.json" in one["says"] for one in said.json["findings"] if one["verdict"] == "wrong")


def test_every_command_has_a_manual_page(alice: Person, tmp_path: Path) -> None:
    pages = alice.wio("man", "--to", tmp_path, "--json").good().json
    assert {"wio", "wio-share", "wio-node-ls", "wio-doctor"} <= set(pages)
    assert sorted(f"{name}.1" for name in pages) == sorted(path.name for path in tmp_path.iterdir())
    page = alice.wio("man", "share").good().out
    assert page.startswith(".TH ")
    assert "until" in page
    assert alice.wio("man", "nonsense").code == 3
