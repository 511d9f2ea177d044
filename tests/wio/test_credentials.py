"""Keys: opened, checked, pinned, kept, and asked for again in time."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import msgspec
import pytest

from protocol.api import Credentials, NewCredentials
from protocol.errors import (
    BadEndpoint,
    BadLifetime,
    BadMessage,
    BadName,
    BadSetting,
    BadSignature,
    NodeOffline,
    NoGrant,
    UnknownWorkspace,
    WioError,
)
from protocol.identity import fingerprint, new_key, public_bytes, to_text
from tests.wio.standins import SealingNode
from wio.credentials import Keys, Wish, check_endpoint, keys_file
from wio.pins import Pins

HUB = "https://hub.example"
START = 1_800_000_000


class Clock:
    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def node(clock: Clock) -> SealingNode:
    return SealingNode(now=lambda: int(clock.now))


@pytest.fixture
def pins(tmp_path: Path) -> Pins:
    return Pins(tmp_path / "nodes.json", HUB)


@pytest.fixture
def keys(node: SealingNode, pins: Pins, tmp_path: Path, clock: Clock) -> Keys:
    return Keys(node.answer, tmp_path / "keys" / "alice.json", pins, clock=clock)


def test_a_sealed_key_is_opened_and_says_where_the_path_lies(keys: Keys) -> None:
    [opening] = keys.open(["scans/sub/a.txt"])
    assert (opening.key.access_key, opening.key.secret_key, opening.key.expires) == ("AK1", "s/e+c", START + 3600)
    assert (opening.place.bucket, opening.place.key, opening.place.inside) == ("lab", "alice/scans/sub/a.txt", "sub/a.txt")


def test_a_kept_key_is_used_until_less_than_a_third_of_its_life_is_left(keys: Keys, node: SealingNode, clock: Clock) -> None:
    keys.open(["scans"])
    clock.now += 2400
    assert keys.open(["scans"])[0].key.access_key == "AK1"
    clock.now += 1
    assert keys.open(["scans"])[0].key.access_key == "AK2"
    assert len(node.minted) == 2


def test_one_key_serves_every_path_of_a_workspace_without_asking_again(keys: Keys, node: SealingNode) -> None:
    keys.open(["scans/a", "alice/cells"])
    places = [opening.place for opening in keys.open(["scans", "scans/sub/", "alice/cells/x/y", "scans/a"])]
    assert len(node.minted) == 1
    assert [place.path for place in places] == ["scans", "scans/sub/", "alice/cells/x/y", "scans/a"]
    assert [place.key for place in places] == ["alice/scans/", "alice/scans/sub/", "alice/cells/x/y", "alice/scans/a"]


def test_a_workspace_that_was_not_asked_for_is_not_guessed(keys: Keys, node: SealingNode) -> None:
    keys.open(["scans/a"])
    for path in ("scans2", "alice/scans", "me/scans", "scan"):
        keys.open([path])
    assert len(node.minted) == 5


def test_another_process_uses_the_key_that_is_kept(
    keys: Keys, node: SealingNode, pins: Pins, tmp_path: Path, clock: Clock
) -> None:
    keys.open(["scans"])
    other = Keys(node.answer, tmp_path / "keys" / "alice.json", pins, clock=clock)
    assert other.open(["scans"])[0].key.access_key == "AK1"
    assert len(node.minted) == 1


def test_processes_that_ask_at_once_share_one_answer(node: SealingNode, pins: Pins, tmp_path: Path, clock: Clock) -> None:
    found: list[str] = []
    together = threading.Barrier(8)

    def ask() -> None:
        keys = Keys(node.answer, tmp_path / "k.json", pins, clock=clock)
        together.wait(10)
        found.append(keys.open(["scans"])[0].key.access_key)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == ["AK1"] * 8
    assert len(node.minted) == 1


@pytest.mark.parametrize(
    "wish",
    [Wish(read_only=True), Wish(narrow=True), Wish(life_s=900), Wish(left_s=3601)],
    ids=["read", "narrow", "short", "left"],
)
def test_a_key_of_another_kind_is_not_used_in_its_place(keys: Keys, node: SealingNode, wish: Wish) -> None:
    keys.open(["scans"])
    keys.open(["scans"], wish)
    assert len(node.minted) == 2


def test_a_narrow_key_serves_the_paths_it_was_asked_for_only(keys: Keys, node: SealingNode) -> None:
    narrow = Wish(narrow=True)
    keys.open(["scans/a"], narrow)
    keys.open(["scans/a"], narrow)
    keys.open(["scans/b"], narrow)
    keys.open(["scans/a"], narrow)
    assert [asked.paths for asked in node.minted] == [("scans/a",), ("scans/b",)]


def test_keys_lie_on_disk_readable_by_their_owner_only(keys: Keys, tmp_path: Path) -> None:
    keys.open(["scans"])
    for path in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_spoiled_file_of_keys_costs_a_new_key_and_nothing_else(keys: Keys, tmp_path: Path) -> None:
    keys.open(["scans"])
    (tmp_path / "keys" / "alice.json").write_bytes(b'{"keys": {"x": \xff')
    assert keys.open(["scans"])[0].key.access_key == "AK2"


def test_keys_that_are_over_are_thrown_away(keys: Keys, clock: Clock, tmp_path: Path) -> None:
    keys.open(["scans"])
    clock.now += 4000
    keys.open(["scans"], Wish(read_only=True))
    assert b"AK1" not in (tmp_path / "keys" / "alice.json").read_bytes()


def test_forgotten_keys_are_gone_from_the_disk(keys: Keys, node: SealingNode, tmp_path: Path) -> None:
    keys.open(["scans"])
    keys.forget()
    assert not (tmp_path / "keys" / "alice.json").exists()
    keys.open(["scans"])
    assert len(node.minted) == 2


def test_the_file_name_gives_neither_hub_nor_token_away() -> None:
    name = keys_file(HUB, "token-of-alice")
    assert "token" not in name
    assert name != keys_file(HUB, "token-of-bob") != keys_file("https://other.example", "token-of-bob")


def test_a_refusal_of_the_hub_arrives_as_it_is_and_nothing_is_kept(pins: Pins, tmp_path: Path, clock: Clock) -> None:
    def offline(_: NewCredentials) -> Credentials:
        raise NodeOffline("lab3 is offline.")

    with pytest.raises(NodeOffline):
        Keys(offline, tmp_path / "k.json", pins, clock=clock).open(["scans"])
    assert not (tmp_path / "k.json").exists()


def test_a_confirmed_key_is_new_and_takes_the_place_of_the_kept_one(keys: Keys, node: SealingNode) -> None:
    assert keys.open(["scans"])[0].kept is False
    assert keys.open(["scans"])[0].kept is True
    [confirmed] = keys.open(["scans"], confirmed=True)
    assert (confirmed.key.access_key, confirmed.kept) == ("AK2", False)
    assert keys.open(["scans/a"])[0].key.access_key == "AK2"
    assert len(node.minted) == 2


@pytest.mark.parametrize("refusal", [NoGrant("No grant."), UnknownWorkspace("No such workspace.")])
def test_a_path_that_the_hub_refuses_leaves_no_key_behind(
    keys: Keys, pins: Pins, tmp_path: Path, clock: Clock, refusal: WioError
) -> None:
    keys.open(["scans"])
    keys.open(["scans"], Wish(read_only=True))

    def refuses(_: NewCredentials) -> Credentials:
        raise refusal

    later = Keys(refuses, tmp_path / "keys" / "alice.json", pins, clock=clock)
    assert later.open(["scans/a"])[0].kept is True
    with pytest.raises(type(refusal)):
        later.open(["scans/a"], confirmed=True)
    assert b"AK" not in (tmp_path / "keys" / "alice.json").read_bytes()
    with pytest.raises(type(refusal)):
        later.open(["scans"])


def test_a_node_that_is_away_costs_no_kept_key(keys: Keys, pins: Pins, tmp_path: Path, clock: Clock) -> None:
    keys.open(["scans"])

    def offline(_: NewCredentials) -> Credentials:
        raise NodeOffline("lab3 is offline.")

    later = Keys(offline, tmp_path / "keys" / "alice.json", pins, clock=clock)
    with pytest.raises(NodeOffline):
        later.open(["scans"], confirmed=True)
    assert later.open(["scans"])[0].key.access_key == "AK1"


# ------------------------------------------------------------------------------------------------------ trust


def test_a_node_that_signs_with_another_key_is_refused_with_both_fingerprints_and_a_way_out(
    keys: Keys, node: SealingNode, pins: Pins
) -> None:
    keys.open(["scans"])
    before = public_bytes(node.key)
    node.key = new_key(b"m" * 32)
    with pytest.raises(BadSignature) as caught:
        keys.open(["scans"], Wish(read_only=True))
    assert fingerprint(before) in caught.value.message
    assert fingerprint(public_bytes(node.key)) in caught.value.message
    assert "wio node trust lab3" in caught.value.todo
    pins.remember("lab3", public_bytes(node.key))
    assert keys.open(["scans"], Wish(read_only=True))


def test_a_node_is_known_per_hub(pins: Pins, tmp_path: Path) -> None:
    pins.remember("lab3", b"a" * 32)
    assert Pins(tmp_path / "nodes.json", "https://other.example").key("lab3") is None
    assert pins.key("lab3") == b"a" * 32


def test_pins_that_cannot_be_read_are_an_error_not_a_fresh_start(pins: Pins, tmp_path: Path) -> None:
    (tmp_path / "nodes.json").write_text("{")
    with pytest.raises(BadSetting, match="cannot be read"):
        pins.check("lab3", b"a" * 32)


def test_a_key_sealed_by_nobody_the_node_knows_is_refused_and_pins_nothing(
    node: SealingNode, pins: Pins, tmp_path: Path, clock: Clock
) -> None:
    def swapped(asked: NewCredentials) -> Credentials:
        one = node.credential(asked)
        return Credentials((msgspec.structs.replace(one, node_key=to_text(public_bytes(new_key(b"x" * 32)))),))

    with pytest.raises(BadSignature, match="not made by it"):
        Keys(swapped, tmp_path / "k.json", pins, clock=clock).open(["scans"])
    assert pins.key("lab3") is None


@pytest.mark.parametrize("part", ["request", "subject", "node_id", "expires_at"])
def test_a_key_made_for_another_request_person_or_node_is_refused(
    node: SealingNode, pins: Pins, tmp_path: Path, clock: Clock, part: str
) -> None:
    def changed(asked: NewCredentials) -> Credentials:
        one = node.credential(asked)
        return Credentials((msgspec.structs.replace(one, **{part: getattr(one, part) + 1}),))

    with pytest.raises(BadSignature):
        Keys(changed, tmp_path / "k.json", pins, clock=clock).open(["scans"])


def test_a_key_that_is_over_on_arrival_names_the_clocks(keys: Keys, node: SealingNode, clock: Clock) -> None:
    node.now = lambda: int(clock.now) - 7200
    with pytest.raises(BadLifetime) as caught:
        keys.open(["scans"])
    assert "clocks" in caught.value.todo


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "http://",
        "http://user@host",
        "http://host/path",
        "http://h?x=1",
        "http://h\n.x",
    ],
)
def test_an_endpoint_that_is_no_plain_address_is_refused(url: str) -> None:
    with pytest.raises(BadEndpoint):
        check_endpoint(url)


def test_an_endpoint_loses_its_final_slash() -> None:
    assert check_endpoint("https://lab3.example:9000/") == "https://lab3.example:9000"


def test_an_answer_that_leaves_a_path_out_is_noticed(node: SealingNode, pins: Pins, tmp_path: Path, clock: Clock) -> None:
    def forgetful(asked: NewCredentials) -> Credentials:
        return Credentials((node.credential(asked, paths=("scans/a",)),))

    with pytest.raises(BadMessage, match="scans/b"):
        Keys(forgetful, tmp_path / "k.json", pins, clock=clock).open(["scans/a", "scans/b"])


@pytest.mark.parametrize("path", ["", "/", "\udcff/x"])
def test_a_path_that_is_none_is_refused_before_anything_is_asked(keys: Keys, node: SealingNode, path: str) -> None:
    with pytest.raises(BadName):
        keys.open([path])
    assert node.minted == []


def test_no_repr_shows_a_secret(keys: Keys) -> None:
    text = repr(keys.open(["scans"]))
    assert "s/e+c" not in text
    assert "TOKEN" not in text
