"""mc in a workspace that is over quota: deleting goes on, and what needs more says why it is refused."""

from __future__ import annotations

import msgspec
import pytest

from protocol.grants import Permission
from wio import mc
from wio.credentials import Key, Opening, Place


def lacking(*given: str) -> Opening | None:
    key = Key("lab3", 3, "AK", "s", "t", 0, 3600, "http://127.0.0.1:9000", "us-east-1")
    line = mc.read(given)
    whole = Place("", "alice/scans", "lab3", key.endpoint, key.region, "lab", "alice/scans/", "alice/scans/a", Permission.TIDY)
    opened = {path: Opening(msgspec.structs.replace(whole, path=path), key) for path in line.paths}
    return mc.lacking(line, opened)


@pytest.mark.parametrize("given", ["rm scans/a", "mv scans/a ./a", "cat scans/a", "ls scans", "cp scans/a ./a"])
def test_reading_and_deleting_are_allowed(given: str) -> None:
    assert lacking(*given.split()) is None


@pytest.mark.parametrize("given", ["cp ./a scans/a", "mv ./a scans/", "pipe scans/a", "mirror ./a scans/"])
def test_adding_is_not(given: str) -> None:
    assert lacking(*given.split()) is not None
