"""Hints, on the real file system and the kernel's real events."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from protocol.messages import RootConfig
from spoke_agent.storage.node import Hint
from spoke_agent.storage.posix import inotify, volume, watch
from spoke_agent.storage.posix.exports import Export, Exports
from spoke_agent.storage.posix.inotify import Inotify
from spoke_agent.storage.posix.settling import Spot
from spoke_agent.storage.posix.watch import Watch, hints
from tests.spoke_agent.storage.posix.trees import Seen, root


class Heard:
    """A watch that runs, and what it said."""

    def __init__(self, seen: Seen, **named: object) -> None:
        self.watch = Watch(seen.exports, settle_s=0.3, **named)  # type: ignore[arg-type] - as each test wants it
        self.hints: list[Hint] = []
        self.roots: list[RootConfig] = [root()]
        self._news = asyncio.Event()

    def take(self, hint: Hint) -> None:
        self.hints.append(hint)
        self._news.set()

    def says(self, key: str, *, number: int = 7) -> bool:
        """Say whether any hint is about a key: itself, or a folder that it lies in."""
        return any(one.root == number and (key.startswith(one.key) if one.folder else one.key == key) for one in self.hints)

    async def until(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not wanted():
                self._news.clear()
                try:
                    async with asyncio.timeout(0.05):
                        await self._news.wait()
                except TimeoutError:
                    continue

    async def until_said(self, *keys: str) -> None:
        await self.until(lambda: all(self.says(key) for key in keys))

    async def ready(self) -> None:
        await self.until(lambda: bool(self.watch.watching))


@asynccontextmanager
async def watching(seen: Seen, **named: object) -> AsyncIterator[Heard]:
    heard = Heard(seen, **named)
    task = asyncio.create_task(heard.watch.run(lambda: heard.roots, heard.take))
    try:
        await heard.ready()
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_files_that_come_change_and_go_are_told_one_by_one(seen: Seen) -> None:
    seen.put("d/old"), seen.put("d/gone"), seen.put("d/moved")
    async with watching(seen) as heard:
        seen.put("d/new"), seen.put("d/old", b"changed")
        (seen.top / "d/gone").unlink()
        (seen.top / "d/moved").rename(seen.top / "d/there")
        await heard.until_said("d/new", "d/old", "d/gone", "d/moved", "d/there")
        assert not any(one.folder for one in heard.hints)
        heard.hints.clear()
        os.link(seen.top / "d/new", seen.top / "d/twin")
        (seen.top / "d/new").chmod(0o600)
        await heard.until_said("d/twin", "d/new")


async def test_a_change_is_told_within_a_tenth_of_a_second(seen: Seen) -> None:
    async with watching(seen) as heard:
        took = []
        for number in range(5):
            begun = time.monotonic()
            seen.put(f"{number}")
            await heard.until_said(f"{number}")
            took.append(time.monotonic() - begun)
        assert min(took) < 0.1


async def test_a_copied_tree_of_ten_thousand_files_is_told_whole(seen: Seen, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number in range(10_000):
        path = source / f"d{number % 40}" / f"e{number % 3}" / f"{number}"
        if number < 120:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    async with watching(seen) as heard:
        await asyncio.to_thread(subprocess.run, ["cp", "-r", str(source), str(seen.top / "copy")], check=True)
        wanted = [f"copy/{path.relative_to(source)}" for path in source.rglob("*") if path.is_file()]

        def told() -> bool:
            folders = tuple({one.key for one in heard.hints if one.folder})
            keys = {one.key for one in heard.hints if not one.folder}
            return all(key.startswith(folders) or key in keys for key in wanted)

        await heard.until(told)
        heard.hints.clear()
        seen.put("copy/d39/e0/late")
        await heard.until_said("copy/d39/e0/late")


async def test_a_big_folder_that_is_renamed_is_told_under_both_names(seen: Seen) -> None:
    for number in range(500):
        seen.put(f"a/d{number % 50}/{number}")
    async with watching(seen) as heard:
        (seen.top / "a").rename(seen.top / "b")
        await heard.until_said("a/d0/0", "b/d0/0")
        heard.hints.clear()
        seen.put("b/d7/new")
        await heard.until_said("b/d7/new")
        assert not heard.says("a/d7/new")
        (seen.top / "b/d7").rename(seen.top / "c")
        await heard.until_said("c/new", "b/d7/new")
        shutil.rmtree(seen.top / "b")
        await heard.until_said("b/d8/8")


async def test_a_file_that_is_being_written_is_told_now_and_then_and_at_its_end(seen: Seen) -> None:
    async with watching(seen) as heard:
        with (seen.top / "log").open("wb", buffering=0) as file:
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                file.write(b"x")
                await asyncio.sleep(0)
        size = (seen.top / "log").stat().st_size
        told = len(heard.hints)
        await heard.until(lambda: len(heard.hints) > told)
        assert 2 <= told <= 8, f"{size} writes"


async def test_names_that_are_no_text_do_no_harm(seen: Seen) -> None:
    async with watching(seen) as heard:
        top = os.fsencode(seen.top)
        os.close(os.open(top + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))
        os.mkdir(top + b"/d\xe4tei")  # noqa: PTH102 - a path of bytes
        os.close(os.open(top + b"/d\xe4tei/x", os.O_CREAT | os.O_WRONLY))
        seen.put("good")
        await heard.until_said("good")
        assert {one.key for one in heard.hints} == {"good"}


async def test_nothing_outside_the_tree_is_watched(seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (seen.top / "link").symlink_to(tmp_path / "out")
    async with watching(seen) as heard:
        (tmp_path / "out/x").touch()
        (seen.top / "link2").symlink_to(tmp_path / "out")
        (tmp_path / "out/y").touch()
        seen.put(".sgwtmp/multipart/x"), seen.put("meta/acl"), seen.put(".a.sgwtmp.12345")
        seen.put("last")
        await heard.until_said("last", "link2")
        assert {one.key for one in heard.hints} == {"link2", "last"}


async def test_an_overflow_of_the_kernels_queue_makes_everything_dirty(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Inotify.read
    spill = [True]

    def overflowing(queue: Inotify) -> list[inotify.Event]:
        events = read(queue)
        if events and spill:
            spill.clear()
            seen.put("unseen/deep/x")
            read(queue)
            return [inotify.Event(-1, inotify.OVERFLOW, b"")]
        return events

    async with watching(seen) as heard:
        monkeypatch.setattr(Inotify, "read", overflowing)
        seen.put("a")
        await heard.until(lambda: Hint(7, "", folder=True) in heard.hints)
        heard.hints.clear()
        seen.put("unseen/deep/y")
        await heard.until_said("unseen/deep/y")
        assert Hint(7, "unseen/deep/y") in heard.hints, "a folder that nobody told of is watched afterwards"


async def test_a_watcher_that_dies_starts_again_and_makes_its_root_dirty(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Inotify.read
    died = []

    def dying(queue: Inotify) -> list[inotify.Event]:
        if read(queue) and not died:
            died.append(1)
            raise ValueError("a fault of the watcher's own")
        return []

    async with watching(seen) as heard:
        monkeypatch.setattr(Inotify, "read", dying)
        seen.put("a")
        await heard.until(lambda: bool(died))
        monkeypatch.setattr(Inotify, "read", read)
        await heard.until(lambda: Hint(7, "", folder=True) in heard.hints)
        await heard.ready()
        heard.hints.clear()
        seen.put("b")
        await heard.until_said("b")


async def test_a_directory_that_goes_and_comes_back_is_followed_again(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "CHECK_S", 0.05)
    async with watching(seen) as heard:
        away = seen.top.rename(seen.top.with_name("away"))
        await heard.until(lambda: Hint(7, "", folder=True) in heard.hints and bool(heard.watch.warnings))
        assert "is not there" in heard.watch.warnings[0]
        away.rename(seen.top)
        await heard.ready()
        seen.put("back")
        await heard.until(lambda: Hint(7, "back") in heard.hints)
        assert heard.watch.warnings == ()


@pytest.mark.parametrize(("number", "setting"), [(errno.ENOSPC, "max_user_watches"), (errno.EMFILE, "max_user_instances")])
async def test_too_few_watches_are_explained_and_the_tree_is_looked_through_instead(
    seen: Seen, monkeypatch: pytest.MonkeyPatch, number: int, setting: str
) -> None:
    def short(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Inotify, "add" if number == errno.ENOSPC else "__init__", short)
    async with watching(seen, poll_s=0.05) as heard:
        (warning,) = heard.watch.warnings
        assert f"sudo sysctl fs.inotify.{setting}=" in warning
        await heard.until(lambda: Hint(7, "", folder=True) in heard.hints)
        seen.put("x")
        await heard.until(lambda: Hint(7, "x") in heard.hints)


async def test_a_network_file_system_is_looked_through(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "networked", lambda _: True)
    seen.put("d/a"), seen.put("top")
    async with watching(seen, poll_s=0.05) as heard:
        assert "looked through" in heard.watch.warnings[0]
        seen.put("d/a", b"changed in place"), seen.put("top", b"too"), seen.put("new/x")
        await heard.until(
            lambda: {Hint(7, "d/", folder=True), Hint(7, "top"), Hint(7, "new/", folder=True)} <= set(heard.hints)
        )
        (seen.top / "d/a").unlink()
        heard.hints.clear()
        await heard.until_said("d/a")


async def test_polling_can_be_asked_for_and_an_empty_answer_of_a_missing_directory_is_none(seen: Seen) -> None:
    seen.put("a")
    async with watching(seen, polling=True, poll_s=0.05) as heard:
        assert heard.watch.warnings == ()
        away = seen.top.rename(seen.top.with_name("away"))
        await heard.until(lambda: bool(heard.watch.warnings))
        assert not any(one == Hint(7, "a") for one in heard.hints), "its files are not told to be gone"
        away.rename(seen.top)


async def test_directories_served_later_are_followed_too(seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SERVED_S", 0.05)
    (tmp_path / "other").mkdir()
    async with watching(seen) as heard:
        heard.roots.append(RootConfig(8, "two", "other", "", root().layout, root().level))
        seen.exports.add(Export("other", str(tmp_path / "other")))
        await heard.until(lambda: "other" in heard.watch.watching)
        (tmp_path / "other/x").touch()
        await heard.until(lambda: Hint(8, "x") in heard.hints)


def test_a_hint_is_said_in_the_space_of_every_root_that_it_concerns() -> None:
    roots = [root("", 1), root("in/", 2), root("in/deep/", 3), root("out/", 4)]
    assert hints(Spot("lab", "in/a"), roots) == [Hint(1, "in/a"), Hint(2, "a")]
    assert hints(Spot("lab", "in/", folder=True), roots) == [
        Hint(1, "in/", folder=True),
        Hint(2, "", folder=True),
        Hint(3, "", folder=True),
    ]
    assert hints(Spot("lab", "", folder=True), roots) == [Hint(number, "", folder=True) for number in (1, 2, 3, 4)]
    assert hints(Spot("else", "in/a"), roots) == []


def test_file_systems_are_told_apart(tmp_path: Path) -> None:
    assert volume.kind_of(Path("/proc")) not in volume.NETWORK
    assert not volume.networked(tmp_path)
    assert volume.volume_of(tmp_path) == volume.volume_of(tmp_path)
    assert volume.volume_of("/proc") != volume.volume_of(tmp_path)
    with pytest.raises(FileNotFoundError):
        volume.kind_of(tmp_path / "nothing")


def test_exports_stay_what_they_were_given() -> None:
    assert [one.bucket for one in Exports([Export("b", "/b"), Export("a", "/a")])] == ["a", "b"]
