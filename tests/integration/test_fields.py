"""What lies in files, end to end on real servers: read by the agent, kept by the hub, shown to people, gone in time."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from bench.rig import Rig
from deploy.federation import Person
from deploy.running import until
from protocol.api import FileDetails, NewRoot, RootKind, Workspace
from protocol.errors import NotAllowed, NotFound, UnknownPath
from protocol.messages import IndexLevel

pytestmark = pytest.mark.real


def picture(width: int = 640, height: int = 480) -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (width, height), (1, 2, 3)).save(made, "PNG")
    return made.getvalue()


class Place:
    """A bucket with files in it, a root over it, and a workspace over all of that."""

    def __init__(self, rig: Rig, name: str, level: IndexLevel) -> None:
        self.rig = rig
        self.name = name
        self.s3 = rig.root_client()
        self.s3.create_bucket(Bucket=name)
        self.level = level

    def put(self, key: str, body: bytes, tags: str = "") -> None:
        self.s3.put_object(Bucket=self.name, Key=f"data/{key}", Body=body, **({"Tagging": tags} if tags else {}))

    def open(self) -> Workspace:
        self.rig.alice.create_root(
            NewRoot("lab3", self.name, RootKind.UNMANAGED_PRIVATE, self.name, accept_visible_names=True, level=self.level)
        )
        return self.rig.alice.create_workspace(self.name, root=f"lab3/{self.name}", folder="data")

    def file(self, key: str) -> FileDetails | None:
        try:
            return self.rig.alice.file(f"{self.name}/{key}")
        except UnknownPath:
            return None

    def becomes(self, key: str, holds: Callable[[FileDetails], object]) -> FileDetails:
        """Wait until a file is shown as it should be."""

        def there() -> bool:
            found = self.file(key)
            return found is not None and bool(holds(found))

        until(f"{key} is shown as it is", there, seconds=30, every=0.05)
        found = self.file(key)
        assert found is not None
        return found

    def set_level(self, level: IndexLevel) -> None:
        self.rig.alice.change_root("lab3", self.name, level=level)


@pytest.fixture
def place(rig: Rig) -> Callable[..., Place]:
    def make(name: str, level: IndexLevel = IndexLevel.METADATA) -> Place:
        return Place(rig, name, level)

    return make


def test_an_import_at_level_metadata_shows_what_lies_in_the_files(place: Callable[..., Place], rig: Rig) -> None:
    one = place("fmeta")
    one.put("a.png", picture(), "project=fly&state=raw")
    one.put("notes.txt", b"three little words\n")
    one.put("broken.png", b"\x89PNG\r\n\x1a\n" + b"nonsense" * 10)
    one.put("blob.bin", b"\0" * 100)
    one.open()
    shown = one.becomes("a.png", lambda found: found.kind)
    assert shown.kind == "image"
    assert (shown.values["image.width"], shown.values["image.height"]) == (640, 480)
    assert shown.tags == {"project": "fly", "state": "raw"}
    assert one.becomes("notes.txt", lambda found: found.kind).text == ""
    assert one.becomes("broken.png", lambda found: found.problem).problem
    assert one.becomes("blob.bin", lambda _: True).kind == ""
    [listed] = rig.alice.unreadable("lab3", "fmeta")
    assert (listed.root, listed.key) == ("lab3/fmeta", "data/broken.png")
    assert listed.problem == one.becomes("broken.png", lambda _: True).problem
    assert rig.alice.unreadable("lab3", "fmeta", after="data/broken.png") == []


def test_an_overwrite_drops_what_was_read_and_what_is_new_follows(place: Callable[..., Place]) -> None:
    one = place("fover")
    one.put("a.png", picture(10, 20))
    one.open()
    one.becomes("a.png", lambda found: found.values.get("image.width") == 10)
    one.put("a.png", picture(30, 40))
    shown = one.becomes("a.png", lambda found: found.values.get("image.width") != 10)
    assert shown.values.get("image.width") in {None, 30}
    one.becomes("a.png", lambda found: found.values.get("image.width") == 30)


def test_a_moved_file_keeps_its_fields_and_tags_can_change_alone(place: Callable[..., Place]) -> None:
    one = place("fmove")
    one.put("a.png", picture(11, 12), "state=raw")
    one.open()
    one.becomes("a.png", lambda found: found.kind)
    one.s3.copy_object(Bucket="fmove", Key="data/sub/b.png", CopySource={"Bucket": "fmove", "Key": "data/a.png"})
    one.s3.delete_object(Bucket="fmove", Key="data/a.png")
    shown = one.becomes("sub/b.png", lambda found: found.kind)
    assert (shown.values["image.width"], shown.tags) == (11, {"state": "raw"})
    until("the old name is gone", lambda: one.file("a.png") is None, seconds=20, every=0.05)
    one.s3.put_object_tagging(Bucket="fmove", Key="data/sub/b.png", Tagging={"TagSet": [{"Key": "state", "Value": "done"}]})
    one.becomes("sub/b.png", lambda found: found.tags == {"state": "done"})


def test_levels_go_up_and_down_and_away_and_come_back(place: Callable[..., Place], rig: Rig) -> None:
    one = place("flevel", IndexLevel.NAMES)
    for number in range(20):
        one.put(f"{number:02}.txt", f"secret number {number}".encode())
    one.open()
    until("the import is done", lambda: rig.alice.root("lab3", "flevel").objects == 20, seconds=30, every=0.05)
    assert one.becomes("00.txt", lambda _: True).kind == ""
    one.set_level(IndexLevel.CONTENT)
    assert one.becomes("19.txt", lambda found: found.text).text.startswith("secret number 19")
    one.set_level(IndexLevel.METADATA)
    shown = one.file("19.txt")
    assert shown is not None
    assert shown.text == "", "at once"
    assert one.becomes("19.txt", lambda found: found.kind).text == ""
    one.set_level(IndexLevel.NAMES)
    assert one.becomes("19.txt", lambda _: True).kind == ""
    assert searched(rig, "19.txt", "flevel") == 1
    one.set_level(IndexLevel.NONE)
    assert one.file("19.txt") is None
    assert rig.alice.files("flevel").entries == ()
    assert searched(rig, "19.txt", "flevel") == 0
    until("nothing is counted", lambda: empty(rig, "flevel"), seconds=20, every=0.05)
    one.set_level(IndexLevel.METADATA)
    assert one.becomes("19.txt", lambda found: found.kind).kind == "text"
    until("all is counted again", lambda: rig.alice.root("lab3", "flevel").objects == 20, seconds=20, every=0.05)
    until("all is found again", lambda: searched(rig, "19.txt", "flevel") == 1, seconds=20, every=0.05)


def searched(rig: Rig, words: str, workspace: str) -> int:
    return rig.alice.search(f"{words} in:{workspace}").total


def empty(rig: Rig, root: str) -> bool:
    found = rig.alice.root("lab3", root)
    return (found.objects, found.bytes, int(found.digest, 16)) == (0, 0, 0)


def test_others_neither_see_a_file_nor_what_could_not_be_read(place: Callable[..., Place], rig: Rig) -> None:
    one = place("fother")
    one.put("a.png", picture())
    one.open()
    one.becomes("a.png", lambda found: found.kind)
    with pytest.raises((NotFound, NotAllowed)):
        rig.bob.file("alice/fother/a.png")
    with pytest.raises((NotFound, NotAllowed)):
        rig.bob.unreadable("lab3", "fother")
    rig.alice.share("fother", "bob", "read")
    assert rig.bob.file("alice/fother/a.png").kind == "image"


def test_the_commands_show_a_file_and_what_could_not_be_read(place: Callable[..., Place], rig: Rig) -> None:
    one = place("fcli")
    one.put("a.png", picture(77, 5), "project=fly")
    one.put("bad.png", b"\x89PNG\r\n\x1a\n" + b"nonsense" * 10)
    one.open()
    one.becomes("a.png", lambda found: found.kind)
    one.becomes("bad.png", lambda found: found.problem)
    alice: Person = rig.federation.person("alice")
    said = alice.wio("file", "fcli/a.png").good().out
    assert "image.width" in said
    assert "77" in said
    assert "tag project" in said
    assert "bad.png" in alice.wio("node", "unreadable", "lab3/fcli").good().out
    assert alice.wio("file", "fcli/none.png").code == 3
    found: Any = alice.wio("file", "fcli/a.png", "--json").good().json
    assert found["kind"] == "image"


def test_an_agent_that_is_killed_while_it_reads_reads_on(place: Callable[..., Place], rig: Rig) -> None:
    one = place("fkill")
    for number in range(150):
        one.put(f"{number:03}.png", picture(number + 1, 3))
    one.open()
    one.becomes("000.png", lambda found: found.kind)
    rig.agent.kill()
    rig.agent.start()
    for number in (0, 75, 149):
        assert one.becomes(f"{number:03}.png", lambda found: found.kind).values["image.width"] == number + 1
