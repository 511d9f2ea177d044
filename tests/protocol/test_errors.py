"""The error tree: as its docstring draws it, with codes that are unique and travel."""

from __future__ import annotations

import itertools
import re

import msgspec
import pytest

from protocol import errors
from protocol.errors import MAX_SENTENCE, BadQuery, NodeOffline, Problem, WioError, error_of


def all_of(base: type[WioError]) -> list[type[WioError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in all_of(child))]


EVERY = [kind for kind in all_of(WioError) if kind.__module__ == "protocol.errors"]
NAMES = {kind.__name__: kind for kind in EVERY}


def drawn() -> dict[str, tuple[str, str]]:
    """Return name -> (parent, what is said about it), as the module's docstring draws the tree."""
    assert errors.__doc__
    found: dict[str, tuple[str, str]] = {"WioError": ("WioError", "")}
    above = {0: "WioError"}
    for line in errors.__doc__.splitlines():
        branch = re.match(r"    ((?:│   |    )*)[├└]── (.*)", line)
        if branch is None:
            continue
        depth = len(branch[1]) // 4 + 1
        said = branch[2].split()
        for word in itertools.takewhile(NAMES.__contains__, said):
            found[word] = (above[depth - 1], " ".join(said[1:]))
            above[depth] = word
    return found


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert {name: parent for name, (parent, _) in drawn().items() if name != "WioError"} == {
        kind.__name__: kind.__base__.__name__ for kind in EVERY if kind is not WioError
    }


def test_status_exit_code_and_retry_are_what_the_docstring_says() -> None:
    said = 0
    for name, (_, text) in drawn().items():
        kind = NAMES[name]
        if status := re.search(r"\b(\d{3})\b", text):
            assert kind.status == int(status[1]), name
            said += 1
        if exit_code := re.search(r"exit (\d)", text):
            assert kind.exit_code == int(exit_code[1]), name
        if "retry helps" in text:
            assert kind.retry, name
    assert said >= 8


def test_codes_are_unique_and_plain() -> None:
    codes = [kind.code for kind in EVERY]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_every_error_is_exported_and_says_what_it_is() -> None:
    assert set(errors.__all__) == {*NAMES, "Problem", "error_of"}
    assert all(kind.__doc__ and kind.__doc__.endswith(".") for kind in EVERY)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_error_comes_back_from_the_wire_as_itself(kind: type[WioError]) -> None:
    sent = kind("Something happened.", todo="Do this.", column=3)
    for encode, decode in ((msgspec.json.encode, msgspec.json.decode), (msgspec.msgpack.encode, msgspec.msgpack.decode)):
        back = error_of(decode(encode(sent.problem), type=Problem))
        assert type(back) is kind
        assert (str(back), back.todo, back.column, back.problem) == ("Something happened.", "Do this.", 3, sent.problem)


def test_an_error_of_a_newer_peer_is_still_an_error() -> None:
    back = error_of(Problem("not-known-yet", "Something new."))
    assert type(back) is WioError
    assert str(back) == "Something new."


def test_a_sentence_without_end_is_cut_off_before_it_travels() -> None:
    problem = NodeOffline("x" * 10_000, todo="y" * 10_000).problem
    assert (len(problem.message), len(problem.todo)) == (MAX_SENTENCE, MAX_SENTENCE)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(problem), type=Problem) == problem


def test_an_error_carries_its_column() -> None:
    assert BadQuery("Wrong.", column=4).problem.column == 4
