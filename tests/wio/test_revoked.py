"""What a person sees whose access was taken away, on a whole wio: hub, agent and server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.rig import Rig
from deploy.federation import Federation

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """alice's node lab3, and bob."""
    with Federation(tmp_path_factory.mktemp("wio")) as federation:
        made = Rig(federation)
        yield made
        made.close()


def test_after_an_unshare_no_command_hands_out_or_uses_the_kept_key(rig: Rig, tmp_path: Path) -> None:
    alice, bob = rig.federation.people["alice"], rig.federation.person("bob")
    alice.wio("create", "lent").good()
    (tmp_path / "a.txt").write_text("content")
    alice.wio("mc", "cp", tmp_path / "a.txt", "lent/").good()
    alice.wio("share", "lent", "bob", "--write").good()
    kept = bob.folder / "keys"
    bob.wio("mc", "ls", "alice/lent").good()
    bob.wio("creds", "alice/lent", "--format", "process").good()
    files = {path: path.read_bytes() for path in kept.iterdir()}
    alice.wio("unshare", "lent", "bob").good()
    for words in (
        ("creds", "alice/lent"),
        ("presign", "alice/lent/a.txt"),
        ("mc", "ls", "alice/lent"),
        ("mc", "cat", "alice/lent/a.txt"),
        ("mc", "cp", "alice/lent/a.txt", f"{tmp_path}/down"),
    ):
        for path, content in files.items():  # as if each were the first command after the unshare
            path.write_bytes(content)
        said = bob.wio(*words)
        assert said.code in {3, 4}, said
        assert said.out == ""
        assert "alice/lent" in said.err
        assert "Denied" not in said.err
        assert bob.wio("creds", "alice/lent", "--format", "process").code in {3, 4}, "the kept key is still there"


def test_shared_again_the_kept_key_or_a_new_one_works_at_once(rig: Rig, tmp_path: Path) -> None:
    alice, bob = rig.federation.people["alice"], rig.federation.person("bob")
    alice.wio("create", "back").good()
    (tmp_path / "b.txt").write_text("content")
    alice.wio("mc", "cp", tmp_path / "b.txt", "back/").good()
    alice.wio("share", "back", "bob").good()
    bob.wio("mc", "ls", "alice/back").good()
    alice.wio("unshare", "back", "bob").good()
    alice.wio("share", "back", "bob").good()
    assert bob.wio("mc", "cat", "alice/back/b.txt").good().out == "content"


def test_who_may_only_read_is_told_so_when_writing(rig: Rig, tmp_path: Path) -> None:
    alice, bob = rig.federation.people["alice"], rig.federation.person("bob")
    alice.wio("create", "readable").good()
    alice.wio("share", "readable", "bob").good()
    bob.wio("mc", "ls", "alice/readable").good()
    (tmp_path / "c.txt").write_text("content")
    said = bob.wio("mc", "cp", tmp_path / "c.txt", "alice/readable/")
    assert said.code == 1
    assert "to read only" in said.err
