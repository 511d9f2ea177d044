"""How a path is read."""

import pytest

from hub.domain.paths import Reading, readings
from protocol.errors import BadName


def test_ones_own_workspace_comes_first_then_the_owners() -> None:
    assert readings("scans/a/b.txt", "bob") == (Reading("bob", "scans", "a/b.txt"), Reading("scans", "a", "b.txt"))
    assert readings("scans", "bob") == (Reading("bob", "scans", ""),)
    assert readings("scans/", "bob") == (Reading("bob", "scans", ""),)
    assert readings("alice/scans", "bob") == (Reading("bob", "alice", "scans"), Reading("alice", "scans", ""))
    assert readings("alice/scans/", "bob") == (Reading("bob", "alice", "scans/"), Reading("alice", "scans", ""))


def test_me_is_always_ones_own() -> None:
    assert readings("me/scans/x", "bob") == (Reading("bob", "scans", "x"),)


def test_keys_stay_as_they_are() -> None:
    assert readings("w//x/../*?", "bob")[0] == Reading("bob", "w", "/x/../*?")
    assert len(readings("w//x", "bob")) == 1


@pytest.mark.parametrize("path", ["", "/scans", "me", "me/", "me//x", "w/a\0b", "w/" + "x" * 1200, "\ud800/\ud800"])
def test_what_cannot_be_a_path_is_refused_in_words(path: str) -> None:
    with pytest.raises(BadName):
        readings(path, "bob")
