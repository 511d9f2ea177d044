"""Finding changes by looking again."""

from __future__ import annotations

import shutil

from spoke_agent.storage.posix.polling import changes, snapshot
from spoke_agent.storage.posix.walking import Request
from tests.spoke_agent.storage.posix.trees import Seen


def test_files_beside_folders_are_told_one_by_one_and_full_folders_as_a_whole(seen: Seen) -> None:
    asked = Request(str(seen.top))
    for key in ("top", "gone", "p/x", "p/leaf/1", "p/leaf/2", "q/leaf/1", "old/a/1", "old/b/2", "same/1"):
        seen.put(key)
    before = snapshot(asked)
    assert changes(before, snapshot(asked)) == ([], [])
    seen.put("top", b"changed")
    (seen.top / "gone").unlink()
    seen.put("p/new"), seen.put("p/leaf/3"), (seen.top / "q/leaf/1").unlink()
    shutil.rmtree(seen.top / "old")
    seen.put("fresh/a/b/c"), seen.put("fresh/d")
    assert changes(before, snapshot(asked)) == (
        ["gone", "p/new", "top"],
        ["fresh/", "old/a/", "old/b/", "p/leaf/", "q/leaf/"],
    )


def test_a_folder_that_gets_its_first_folder_is_told(seen: Seen) -> None:
    asked = Request(str(seen.top))
    seen.put("a/1")
    before = snapshot(asked)
    seen.put("a/b/2")
    assert changes(before, snapshot(asked)) == ([], ["a/"])


def test_many_folders_are_each_known_for_what_they_are(seen: Seen) -> None:
    """Pages end anywhere; files of a folder come before and after those of the folders in it."""
    for number in range(2_500):
        seen.put(f"a/{number}")
        if number % 500 == 0:
            seen.put(f"a/{number}d/x")
    found = snapshot(Request(str(seen.top))).folders
    assert isinstance(found["a/"], dict)
    assert len(found["a/"]) == 2_500
    assert all(isinstance(found[f"a/{number}d/"], int) for number in range(0, 2_500, 500))
