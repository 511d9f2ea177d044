"""The owner's limits: what they let through, what they cut, and how a wrong file is told."""

from __future__ import annotations

import pytest

from protocol.errors import BadSetting
from protocol.grants import Grant, Permission
from protocol.messages import IndexLevel
from spoke_agent.access.ceiling import TEMPLATE, Ceiling, clamp, explain, parse, sentences
from tests.spoke_agent.access.bench import ALICE, BOB, EVERYONE, grant


def test_the_file_that_join_writes_changes_nothing() -> None:
    assert parse(TEMPLATE) == parse("") == Ceiling()
    written = [grant("a/", Permission.MANAGE), grant("", bucket="any"), grant("d/", Permission.DROP)]
    assert clamp(Ceiling(), BOB, written) == clamp(parse(TEMPLATE), BOB, written)
    assert clamp(Ceiling(), BOB, written).grants == tuple(written)
    assert clamp(Ceiling(), BOB, written).refusals == ()


def test_every_line_that_the_template_shows_commented_out_is_good() -> None:
    lines = [line[2:] for line in TEMPLATE.splitlines() if line.startswith("# ") and " = " in line]
    assert len(lines) == 3
    shown = parse("\n".join(lines))
    assert (shown.places, shown.people) == (("lab", "archive/released/"), ("alice", "bob"))


@pytest.mark.parametrize(
    ("place", "bucket", "prefix", "inside"),
    [
        ("lab", "lab", "", True),
        ("lab", "lab", "deep/er/", True),
        ("lab", "laboratory", "", False),
        ("lab", "lab--alice--scans", "", True),
        ("lab", "lab-alice", "", False),
        ("lab/scans/", "lab", "scans/", True),
        ("lab/scans/", "lab", "scans/sub/", True),
        ("lab/scans/", "lab", "", False),
        ("lab/scans/", "lab", "scans2/", False),
        ("lab/scans/", "lab--alice--scans", "", False),
    ],
)
def test_a_grant_lies_inside_a_place_or_is_left_out(place: str, bucket: str, prefix: str, inside: bool) -> None:
    one = Grant(7, bucket, prefix, Permission.READ)
    clamped = clamp(parse(f'places = ["{place}"]'), BOB, [one])
    assert clamped.grants == ((one,) if inside else ())
    assert [refusal.workspace for refusal in clamped.refusals] == ([] if inside else [7])


def test_read_only_narrows_writing_and_leaves_nothing_of_dropping() -> None:
    given = [grant("a/", Permission.MANAGE), grant("b/", Permission.WRITE), grant("c/", Permission.DROP), grant("d/")]
    for limits in ("read_only = true", 'highest_permission = "read"'):
        clamped = clamp(parse(limits), BOB, given)
        assert [(one.prefix, one.permission) for one in clamped.grants] == [(p, Permission.READ) for p in ("a/", "b/", "d/")]
        assert len(clamped.refusals) == 3
        assert all(refusal.problem.code == "over-ceiling" for refusal in clamped.refusals)


def test_only_named_people_get_in_and_everyone_is_a_name_too() -> None:
    limits = parse('people = ["alice"]')
    assert clamp(limits, ALICE, [grant("a/")]).grants
    assert not clamp(limits, BOB, [grant("a/")]).grants
    assert not clamp(limits, EVERYONE, [grant("a/")]).grants
    assert clamp(parse('people = ["public"]'), EVERYONE, [grant("a/")]).grants
    assert not clamp(parse("people = []"), ALICE, [grant("a/")]).grants


def test_refusals_stay_within_what_a_message_carries() -> None:
    clamped = clamp(parse("places = []"), BOB, [grant(f"w{number}/") for number in range(1000)])
    assert (len(clamped.grants), len(clamped.refusals)) == (0, 200)


@pytest.mark.parametrize(
    "text",
    [
        "places = [",
        'places = "lab"',
        'places = ["UPPER"]',
        'places = ["lab/no-slash"]',
        'places = ["lab/*/"]',
        'places = ["lab/../"]',
        'people = ["a*"]',
        "longest_key_s = 899",
        "longest_key_s = -1",
        "longest_lease_s = 1e99",
        'highest_permission = "drop"',
        'highest_permission = "all"',
        'highest_index_level = "local"',
        'read_only = "yes"',
        "read-only = true",
        "\x00",
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(text: str) -> None:
    with pytest.raises(BadSetting, match="ceiling file") as raised:
        parse(text)
    assert raised.value.todo


def test_a_wrong_line_is_named() -> None:
    with pytest.raises(BadSetting, match="in line 3: there is no setting read-only"):
        parse("# mine\n\nread-only = true\n")
    with pytest.raises(BadSetting, match="in line 2: longest_key_s: expected int >= 900"):
        parse('places = ["lab"]\n  longest_key_s = 5\n')
    with pytest.raises(BadSetting, match="in line 2: user name"):
        parse('places = ["lab"]\npeople = ["alice", "b*"]\n')
    with pytest.raises(BadSetting, match="line 2"):
        parse("read_only = true\nread_only = false\n")


def test_each_line_is_explained_and_what_is_left_out_comes_last() -> None:
    lines = explain('people = ["alice"]\n# a word\nlongest_key_s = 5400\nread_only = true\n')
    assert [(line.number, line.setting) for line in lines[:3]] == [(1, "people"), (3, "longest_key_s"), (4, "read_only")]
    assert all(line.number == 0 for line in lines[3:])
    assert {line.setting for line in lines} == set(Ceiling.__struct_fields__)
    means = {line.setting: line.means for line in lines}
    assert "Only alice" in means["people"]
    assert "everyone opens nothing" in means["people"]
    assert "90 min" in means["longest_key_s"]
    assert "read_only stands above" in means["highest_permission"]
    assert all(line.means.endswith(".") for line in lines)
    assert explain("people = []\nplaces = []")[0].value == "(nobody, nowhere)"


def test_the_limits_are_said_in_words() -> None:
    said = " ".join(sentences(parse('places = ["lab"]\nread_only = true\npeople = ["alice"]\nhighest_index_level = "names"')))
    for word in ("Only in lab", "Read only", "Only for alice", "at most names"):
        assert word in said
    assert parse("").highest_index_level is IndexLevel.CONTENT


def test_the_owners_pace_and_quiet_hours_are_read_explained_and_told() -> None:
    text = 'highest_pace = 500\nquiet_hours = ["08:00-18:00", "22:00-23:00"]'
    ceiling = parse(text)
    assert (ceiling.highest_pace, ceiling.quiet_hours) == (500, ("08:00-18:00", "22:00-23:00"))
    lines = {line.setting: line for line in explain(text)}
    assert (lines["highest_pace"].number, lines["quiet_hours"].number) == (1, 2)
    assert "500" in lines["highest_pace"].means
    assert "08:00-18:00 and 22:00-23:00" in lines["quiet_hours"].means
    assert "08:00-18:00" in " ".join(sentences(ceiling))


@pytest.mark.parametrize("line", ['quiet_hours = ["8-18"]', 'quiet_hours = ["08:00-08:00"]', "highest_pace = -1"])
def test_hours_and_paces_that_are_none_are_refused_with_their_line(line: str) -> None:
    with pytest.raises(BadSetting, match="line 2"):
        parse(f"read_only = true\n{line}")
