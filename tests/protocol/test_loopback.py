"""Who may ask for a key on loopback: rules that two endpoints share."""

from __future__ import annotations

import pytest

from protocol.errors import NotAllowed
from protocol.loopback import PASSED_ON, ContainerKey, check_caller, hosts, is_loopback, token_of

ALLOWED = hosts("127.0.0.1", 8731)
GOOD = (("Host", "127.0.0.1:8731"), ("Authorization", "t"), ("User-Agent", "aws"))
ADDRESS = "http://127.0.0.1:8731/lab3"


@pytest.mark.parametrize("host", ["127.0.0.1:8731", "localhost:8731", "LOCALHOST:8731", "[::1]:8731"])
def test_a_loopback_name_with_the_right_port_may_ask(host: str) -> None:
    check_caller((("host", host),), ALLOWED, "127.0.0.1", ADDRESS)


def test_an_address_that_is_listened_on_may_be_asked_by_its_own_name() -> None:
    check_caller((("Host", "[::1]:1"),), hosts("::1", 1), "::1", ADDRESS)
    check_caller((("Host", "127.0.0.9:1"),), hosts("127.0.0.9", 1), "127.0.0.9", ADDRESS)


@pytest.mark.parametrize(
    "headers", [(), (("Host", "evil.example:8731"),), (("Host", "127.0.0.1"),), (*GOOD, ("host", "127.0.0.1:8731"))], ids=str
)
def test_any_other_name_or_two_of_them_may_not(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(NotAllowed, match="loopback") as caught:
        check_caller(headers, ALLOWED, "127.0.0.1", ADDRESS)
    assert ADDRESS in caught.value.todo


@pytest.mark.parametrize("name", [*PASSED_ON, *(name.lower() for name in PASSED_ON)])
def test_what_a_browser_or_proxy_adds_is_refused_whatever_it_says(name: str) -> None:
    with pytest.raises(NotAllowed, match="not to web pages"):
        check_caller((*GOOD, (name, "")), ALLOWED, "127.0.0.1", ADDRESS)


def test_a_page_may_not_but_an_address_somebody_typed_may() -> None:
    check_caller((*GOOD, ("Sec-Fetch-Site", "none")), ALLOWED, "127.0.0.1", ADDRESS)
    for site in ("cross-site", "same-site", "Same-Origin"):
        with pytest.raises(NotAllowed):
            check_caller((*GOOD, ("sec-fetch-site", site)), ALLOWED, "127.0.0.1", ADDRESS)


@pytest.mark.parametrize("peer", ["", "10.0.0.1", "::ffff:10.0.0.1", "name"])
def test_only_this_machine_may_ask(peer: str) -> None:
    assert not is_loopback(peer)
    with pytest.raises(NotAllowed, match="this machine only"):
        check_caller(GOOD, ALLOWED, peer, ADDRESS)


@pytest.mark.parametrize(
    ("sent", "token"),
    [
        (("abc",), "abc"),
        (("Bearer abc",), "abc"),
        ((), ""),
        (("",), ""),
        (("a", "a"), ""),
        (("a b",), ""),
        (("a\n",), ""),
        (("ä",), ""),
        (("Bearer ",), ""),
    ],
)
def test_one_plain_token_counts_and_nothing_else(sent: tuple[str, ...], token: str) -> None:
    assert token_of(tuple(("authorization", text) for text in sent)) == token


def test_an_answer_shows_no_secret() -> None:
    assert repr(ContainerKey("AK", "secret", "token", "2026-01-02T03:04:05Z")) == "ContainerKey(AK)"
