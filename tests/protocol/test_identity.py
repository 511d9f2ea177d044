"""Join strings, keys as text, and what the hub signs."""

from __future__ import annotations

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import BadJoinString, BadMessage, BadSignature, NotSignedIn
from protocol.identity import (
    _ASSERTION_TAG,
    Assertion,
    JoinString,
    SignedAssertion,
    _checksum,
    check_hub_url,
    fingerprint,
    from_text,
    new_key,
    open_assertion,
    public_bytes,
    public_key,
    sign_assertion,
    sign_eviction,
    to_text,
    verify_eviction,
)
from protocol.messages import Evict
from tests.protocol.parties import HUB_KEY, NODE_KEY

NOW = 1_764_000_000
JOIN = JoinString("https://hub.example:8443", public_bytes(HUB_KEY), b"\x03" * 32, NOW + 600)
TEXT = JOIN.encode()
BROKEN_TEXT = msgspec.Raw(b"\xa2\xff\xfe")
"""A text in msgpack that is not UTF-8."""
HUB = HUB_KEY.public_key()
LETTERS = string.ascii_letters + string.digits + "-_."


def reason(text: str, now: int = NOW) -> str:
    with pytest.raises(BadJoinString) as caught:
        JoinString.parse(text, now)
    assert caught.value.todo
    assert "\x1b" not in caught.value.message
    return caught.value.message


def test_a_join_string_is_read_back_whatever_white_space_pasting_added() -> None:
    assert JoinString.parse(TEXT, NOW) == JOIN
    assert JoinString.parse(f"  {TEXT[:40]}\n {TEXT[40:]}\t\n", NOW) == JOIN
    assert public_bytes(JOIN.key) == public_bytes(new_key(b"\x03" * 32))


@pytest.mark.parametrize("length", range(len(TEXT)))
def test_a_join_string_cut_off_anywhere_is_refused(length: int) -> None:
    assert reason(TEXT[:length])


@given(st.integers(0, len(TEXT) - 1), st.sampled_from(LETTERS))
def test_one_wrong_character_anywhere_is_noticed(at: int, letter: str) -> None:
    if TEXT[at] != letter:
        assert reason(TEXT[:at] + letter + TEXT[at + 1 :])


@given(st.integers(0, len(TEXT) - 2))
def test_two_swapped_characters_are_noticed(at: int) -> None:
    if TEXT[at] != TEXT[at + 1]:
        assert reason(TEXT[:at] + TEXT[at + 1] + TEXT[at] + TEXT[at + 2 :])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "begin with wio1."),
        ("https://hub.example", "begin with wio1."),
        ("wio2" + TEXT[4:], "begin with wio1."),
        ("wio1.", "cut off"),
        ("wio1..", "cut off"),
        ("wio1..abcdefgh", "wrong character"),
        (TEXT[:-1], "cut off"),
        (TEXT.upper(), "begin with"),
        ("wio1." + "A" * 3000, "begin with"),
        ("wio1.\x1b[31m\u202e." + "A" * 8, "wrong character"),
    ],
)
def test_what_is_wrong_with_a_join_string_is_said(text: str, words: str) -> None:
    assert words in reason(text)


def sealed_up(body: object) -> str:
    text = "wio1." + (body if isinstance(body, str) else to_text(msgspec.msgpack.encode(body)))
    return f"{text}.{_checksum(text)}"


@pytest.mark.parametrize(
    "body",
    [
        "!!!!",
        "é",
        [1],
        [BROKEN_TEXT, bytes(32), bytes(32), NOW + 1],
        {"hub_url": "https://hub"},
        ["https://hub", bytes(32), bytes(32)],
        ["https://hub", bytes(32), bytes(32), NOW + 1, "more"],
        ["https://hub", bytes(31), bytes(32), NOW + 1],
        ["https://hub", bytes(32), bytes(33), NOW + 1],
        ["https://hub", bytes(32), bytes(32), -1],
        ["https://hub", bytes(32), bytes(32), 253_402_300_799],
        ["http://" + "h" * 500, bytes(32), bytes(32), NOW + 1],
    ],
)
def test_a_join_string_with_a_right_checksum_and_nonsense_inside_is_refused(body: object) -> None:
    assert "cannot be read" in reason(sealed_up(body))


BAD_URLS = [
    "javascript:alert(1)",
    "file:///etc/passwd",
    "ftp://hub.example",
    "https://",
    "https:///path",
    "https://user:pw@hub.example",
    "https://hub.example?x=1",
    "https://hub.example#x",
    "https://hub.example:0",
    "https://hub.example:99999",
    "https://hub.example:port",
    "https://[::1",
    "https://hub.example/\u202e",
    "https://hub\u2100.example",
    "//hub.example",
    "",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_an_address_that_cannot_be_a_hub_is_refused_inside_a_join_string_too(url: str) -> None:
    with pytest.raises(BadJoinString):
        check_hub_url(url)
    assert reason(sealed_up([url, bytes(32), bytes(32), NOW + 1]))


@pytest.mark.parametrize(
    "url", ["https://hub.example", "http://127.0.0.1:8080", "https://[::1]:8443/wio", "https://hub.example:443/"]
)
def test_an_address_of_a_hub_is_taken(url: str) -> None:
    assert check_hub_url(url) == url


def test_a_join_string_expires_at_its_second() -> None:
    assert JoinString.parse(TEXT, NOW + 599) == JOIN
    assert "expired" in reason(TEXT, NOW + 600)


def test_a_join_string_never_shows_its_seed_when_printed() -> None:
    for text in (repr(JOIN), str(JOIN), repr([JOIN])):
        assert to_text(JOIN.seed) not in text
        assert repr(JOIN.seed) not in text


# ---------------------------------------------------------------------------------------------------- keys as text


@given(st.binary(max_size=100))
def test_bytes_as_text_come_back(raw: bytes) -> None:
    assert from_text(to_text(raw)) == raw
    assert set(to_text(raw)) <= set(string.ascii_letters + string.digits + "-_")


@pytest.mark.parametrize("text", ["A", "AB", "AA==", "A+/A", "AA A", "AA\n", "é", "AAAAA", "\ud800"])
def test_text_that_is_not_the_one_form_of_its_bytes_is_refused(text: str) -> None:
    with pytest.raises(BadMessage):
        from_text(text)


def test_a_fingerprint_is_short_stable_and_differs_with_the_key() -> None:
    one, other = fingerprint(public_bytes(HUB_KEY)), fingerprint(public_bytes(NODE_KEY))
    assert one == fingerprint(public_bytes(HUB_KEY)) != other
    assert [len(group) for group in one.split("-")] == [4, 4, 4, 4]


def test_bytes_that_are_no_key_are_refused() -> None:
    assert public_key(public_bytes(HUB_KEY)).public_bytes_raw() == public_bytes(HUB_KEY)
    for raw in (b"", bytes(31), bytes(33)):
        with pytest.raises(BadMessage):
            public_key(raw)


# ---------------------------------------------------------------------------------------------------- statements


def test_an_eviction_counts_only_from_the_hub_and_only_for_its_node() -> None:
    evict = sign_eviction(HUB_KEY, 7, NOW)
    verify_eviction(HUB, evict, 7)
    for bad, node in (
        (evict, 8),
        (Evict(8, evict.at, evict.signature), 8),
        (Evict(7, evict.at + 1, evict.signature), 7),
        (sign_eviction(NODE_KEY, 7, NOW), 7),
    ):
        with pytest.raises(BadSignature):
            verify_eviction(HUB, bad, node)


ASSERTION = Assertion(7, 12, "bob", NOW, NOW + 600)


def test_an_assertion_holds_for_its_node_from_a_minute_before_it_was_made_until_it_expires() -> None:
    signed = sign_assertion(HUB_KEY, ASSERTION)
    for now in (NOW - 60, NOW, NOW + 599):
        assert open_assertion(HUB, signed, node=7, now=now) == ASSERTION
    for node, now, words in ((8, NOW, "another node"), (7, NOW - 61, "future"), (7, NOW + 600, "expired")):
        with pytest.raises(NotSignedIn, match=words) as caught:
            open_assertion(HUB, signed, node=node, now=now)
        assert caught.value.todo


def test_an_assertion_that_the_hub_did_not_sign_as_one_is_refused() -> None:
    signed = sign_assertion(HUB_KEY, ASSERTION)
    for bad in (
        sign_assertion(NODE_KEY, ASSERTION),
        SignedAssertion(signed.body, HUB_KEY.sign(signed.body)),
        SignedAssertion(signed.body, bytes(64)),
        SignedAssertion(signed.body + b"\0", signed.signature),
    ):
        with pytest.raises(BadSignature):
            open_assertion(HUB, bad, node=7, now=NOW)


@pytest.mark.parametrize(
    "raw",
    [
        "text",
        [7, 12, "bob", NOW],
        [7, 12, BROKEN_TEXT, NOW, NOW + 1],
        [7, 12, "bob", NOW, NOW + 1, {"alg": "none"}],
        [7, 12, "b" * 41, NOW, NOW + 1],
        [7, -1, "bob", NOW, NOW + 1],
        [7, 12, "bob", NOW, 253_402_300_799],
    ],
)
def test_a_signed_body_that_is_no_assertion_is_refused(raw: object) -> None:
    body = msgspec.msgpack.encode(raw)
    with pytest.raises(BadMessage):
        open_assertion(HUB, SignedAssertion(body, HUB_KEY.sign(_ASSERTION_TAG + body)), node=7, now=NOW)
