"""Compiled policies, judged by the reference evaluator."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import BadInput, BadName, StorageRefused
from protocol.grants import Grant, Narrowing, Permission
from spoke_agent.storage import policy
from spoke_agent.storage.policy import (
    MAX_BYTES,
    MAX_PATTERNS,
    MAX_POLICIES,
    Access,
    Pattern,
    arrange,
    document,
    fingerprint,
    narrowed,
    patterns,
)
from tests.spoke_agent.storage.evaluator import (
    ADMIN,
    NEVER,
    READS,
    WRITES,
    allows,
    compiled,
    grant,
    matches,
    should,
    should_list,
)

BUCKETS = ("lab", "lab2", "lab--bob--a")
PREFIXES = ("", "a/", "a/b/", "ab/", "b/", "p1/", "p10/", "ä ö/", 'q"uote/', "a-b/")
GRANTS = st.lists(
    st.builds(grant, st.sampled_from(BUCKETS), st.sampled_from(PREFIXES), st.sampled_from(list(Permission))), max_size=12
)
KEYS = st.builds(
    lambda front, rest: front + rest,
    st.sampled_from([*PREFIXES, "p1", "a", "p", "/", "A/"]),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
    | st.lists(st.sampled_from(["..", "../", "/", ".", "a", "b/", "..a", "/..."]), max_size=4).map("".join),
).filter(bool)


@settings(deadline=None)
@given(GRANTS, st.sampled_from(BUCKETS), KEYS)
def test_compiled_policies_allow_exactly_what_the_grants_say(grants: list[Grant], bucket: str, key: str) -> None:
    documents = compiled(grants)
    for action in (*READS, *WRITES, *NEVER):
        assert allows(documents, action, f"{bucket}/{key}") == should(grants, action, bucket, key), action


@settings(deadline=None)
@given(GRANTS, st.sampled_from(BUCKETS), KEYS)
def test_listing_is_allowed_below_what_can_be_read_and_nowhere_else(grants: list[Grant], bucket: str, key: str) -> None:
    documents = compiled(grants)
    assert allows(documents, "s3:ListBucket", bucket, key) == should_list(grants, bucket, key)
    assert allows(documents, "s3:ListBucket", bucket) == should_list(grants, bucket, None)


@settings(deadline=None)
@given(GRANTS)
def test_a_bucket_can_be_located_exactly_where_anything_is_granted_in_it(grants: list[Grant]) -> None:
    documents = compiled(grants)
    for bucket in BUCKETS:
        assert allows(documents, "s3:GetBucketLocation", bucket) == any(one.bucket == bucket for one in grants)


@settings(deadline=None)
@given(GRANTS)
def test_every_single_policy_refuses_admin_calls_and_old_versions(grants: list[Grant]) -> None:
    for text in compiled(grants):
        denied = [one for one in json.loads(text)["Statement"] if one["Effect"] == "Deny"]
        for action in (*ADMIN, "s3:DeleteObjectVersion", "s3:BypassGovernanceRetention"):
            assert any(matches(one, action, "lab/any", None) for one in denied)


def test_without_grants_nothing_is_allowed_and_what_everyone_has_still_is() -> None:
    (empty,) = compiled([])
    for action, resource in itertools.product((*READS, *WRITES, *NEVER, *ADMIN, "s3:ListBucket"), ("lab", "lab/a")):
        assert not allows([empty], action, resource, "")
    assert allows([empty, *compiled([grant("lab", "public/")])], "s3:GetObject", "lab/public/a")


def test_no_statement_mixes_admin_and_s3_actions() -> None:
    for statement in json.loads(compiled([grant("lab", "a/", Permission.WRITE)])[0])["Statement"]:
        assert len({action.partition(":")[0] for action in statement["Action"]}) == 1


def test_a_policy_is_minified_and_the_same_every_time() -> None:
    grants = [grant("lab", f"p{n}/", Permission.WRITE) for n in range(20)]
    (text,) = compiled(grants)
    assert b": " not in text
    assert b"\n" not in text
    assert [text] == compiled(grants[::-1])


@pytest.mark.parametrize("prefix", ["a", "a*/", "?ob/", "${user}/", "a\\/", "a//", "../", "a/./", "{a}/", "a\0/"])
def test_a_prefix_that_a_policy_would_read_as_syntax_is_refused(prefix: str) -> None:
    with pytest.raises(BadName):
        patterns([grant("lab", prefix)])
    with pytest.raises(BadName):
        narrowed(Narrowing((("lab", prefix),)))


@pytest.mark.parametrize("bucket", ["*", "la*b", "lab/a", "LAB", "", "a..b"])
def test_a_bucket_that_is_none_is_refused(bucket: str) -> None:
    with pytest.raises(BadName):
        patterns([grant(bucket, "")])
    with pytest.raises(BadName):
        narrowed(Narrowing(((bucket, ""),)))


def test_a_pattern_above_makes_those_below_needless() -> None:
    grants = [
        grant("lab", ""),
        grant("lab", "a/"),
        grant("lab", "a/b/", Permission.WRITE),
        grant("lab", "a/b/c/", Permission.DROP),
    ]
    assert patterns(grants) == {Pattern("lab", "", Access.READ), Pattern("lab", "a/b/", Access.WRITE)}
    assert patterns([grant("lab", "a/"), grant("lab", "a/", Permission.DROP)]) == {
        Pattern("lab", "a/", Access.READ),
        Pattern("lab", "a/", Access.DROP),
    }
    assert patterns([grant("lab", "a/", Permission.MANAGE), grant("lab", "a/")]) == {Pattern("lab", "a/", Access.WRITE)}
    tidied = [grant("lab", "a/", Permission.TIDY), grant("lab", "a/b/"), grant("lab", "a/", Permission.DROP)]
    assert patterns(tidied) == {Pattern("lab", "a/", Access.TIDY), Pattern("lab", "a/", Access.DROP)}
    assert patterns([*tidied, grant("lab", "", Permission.WRITE)]) == {Pattern("lab", "", Access.WRITE)}


def many(count: int, width: int = 4) -> list[Grant]:
    return [grant("lab", f"{n:0{width}}/") for n in range(count)]


def test_past_the_limit_a_second_policy_begins() -> None:
    assert [len(part) for part in arrange(patterns(many(MAX_PATTERNS)))] == [MAX_PATTERNS]
    assert [len(part) for part in arrange(patterns(many(MAX_PATTERNS + 1)))] == [MAX_PATTERNS, 1]


@pytest.mark.parametrize("wide", [many(30, 500), many(150, 40), [grant(f"lab--{'x' * 50}{n:03}", "") for n in range(150)]])
def test_no_policy_is_larger_than_the_server_takes(wide: list[Grant]) -> None:
    parts = arrange(patterns(wide))
    assert len(parts) > 1
    assert all(len(document(part)) <= MAX_BYTES for part in parts)
    assert frozenset().union(*parts) == patterns(wide)


def test_too_many_places_are_said_to_be_too_many() -> None:
    with pytest.raises(StorageRefused, match="1201 places"):
        arrange(patterns(many(MAX_PATTERNS * MAX_POLICIES + 1)))


def test_room_that_gaps_left_is_used_before_more_policies_than_allowed_are_made() -> None:
    full = patterns(many(MAX_PATTERNS * MAX_POLICIES))
    before = arrange(full)
    shuffled = [frozenset(list(part)[:75]) for part in before]
    kept = frozenset().union(*shuffled)
    more = kept | patterns([grant("other", f"{n:04}/") for n in range(600)])
    after = arrange(more, shuffled)
    assert len(after) <= MAX_POLICIES
    assert frozenset().union(*after) == more
    wide = frozenset(Pattern("lab", f"{n:0400}/", Access.READ) for n in range(MAX_POLICIES * 12))
    again = arrange(wide, [frozenset({one}) for one in sorted(wide)[:16]])
    assert frozenset().union(*again) == wide
    assert len(again) <= MAX_POLICIES


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_what_stays_granted_never_moves_to_another_policy(chance: random.Random) -> None:
    places = sorted(patterns(many(500)))
    now: tuple[frozenset[Pattern], ...] = ()
    for _ in range(6):
        wanted = frozenset(chance.sample(places, chance.randint(0, 450)))
        then = arrange(wanted, now)
        assert frozenset().union(*then) == wanted
        needed = len(arrange(wanted))
        for number, part in enumerate(now[: 2 * needed]):
            assert part & wanted <= then[number] if number < len(then) else not part & wanted
        now = then


def test_policies_that_are_empty_now_go_but_the_first_stays() -> None:
    now = arrange(patterns(many(400)))
    assert len(now) == 3
    assert arrange(frozenset(), now) == (frozenset(),)
    assert arrange(now[0], now) == (now[0],)


@settings(deadline=None)
@given(GRANTS, st.randoms(use_true_random=False))
def test_a_fingerprint_does_not_depend_on_how_patterns_are_dealt_out(grants: list[Grant], chance: random.Random) -> None:
    opened = patterns(grants)
    halves: tuple[list[Pattern], list[Pattern]] = ([], [])
    for one in opened:
        halves[chance.random() < 0.5].append(one)
    dealt = [document(frozenset(half)) for half in halves]
    assert fingerprint(dealt) == fingerprint([document(opened)])


def test_a_fingerprint_sees_every_difference() -> None:
    one = document(patterns([grant("lab", "a/", Permission.WRITE), grant("lab", "b/")]))
    seen = {fingerprint([one])}
    whole = json.loads(one)
    variants = [
        {**whole, "Statement": whole["Statement"][:-1]},
        {**whole, "Statement": [*whole["Statement"], {"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}]},
        json.loads(one.replace(b"b/", b"c/")),
        json.loads(one.replace(b"s3:prefix", b"s3:delimiter")),
        json.loads(one.replace(b"StringLike", b"StringNotLike")),
        json.loads(one.replace(b'"Condition":{', b'"Condition":{"Bool":{"aws:SecureTransport":["true"]},')),
        json.loads(one.replace(b'"StringLike":{', b'"StringLike":{"s3:delimiter":["/"],')),
    ]
    for variant in variants:
        seen.add(fingerprint([json.dumps(variant).encode()]))
    assert len(seen) == 1 + len(variants)


def test_a_fingerprint_is_the_same_for_the_server_s_own_writing_of_a_policy() -> None:
    text = document(patterns([grant("lab", "a/")]))
    again = json.loads(text)
    for statement in again["Statement"]:
        statement["Action"].reverse()
        if len(statement["Action"]) == 1:
            statement["Action"] = statement["Action"][0]
    again["Statement"].reverse()
    assert fingerprint([json.dumps(again, indent=1).encode()]) == fingerprint([text])


@pytest.mark.parametrize("broken", [b"", b"not json", b"[]", b"{}", b'{"Statement":5}', b'{"Statement":["x"]}'])
def test_what_is_no_policy_has_a_fingerprint_of_its_own(broken: bytes) -> None:
    assert fingerprint([broken]) != fingerprint([])
    assert fingerprint([broken]) != fingerprint([broken + b" "])


def test_nothing_is_narrowed_where_nothing_is_asked() -> None:
    assert narrowed(Narrowing()) is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(BUCKETS), st.sampled_from(PREFIXES)), min_size=1, max_size=6), KEYS, st.booleans())
def test_a_narrowed_key_does_what_its_places_allow_and_no_more(
    places: list[tuple[str, str]], key: str, read_only: bool
) -> None:
    text = narrowed(Narrowing(tuple(places), read_only=read_only))
    assert text is not None
    for bucket in BUCKETS:
        inside = any(bucket == one and key.startswith(prefix) for one, prefix in places)
        assert allows([text], "s3:GetObject", f"{bucket}/{key}") == inside
        assert allows([text], "s3:ListBucket", bucket, key) == inside
        for action in WRITES:
            assert allows([text], action, f"{bucket}/{key}") == (inside and not read_only)
        for action in (*NEVER, *ADMIN):
            assert not allows([text], action, f"{bucket}/{key}")


def test_reading_only_reads_everywhere_its_person_may() -> None:
    text = narrowed(Narrowing(read_only=True))
    assert text is not None
    assert allows([text], "s3:GetObject", "lab/a")
    assert allows([text], "s3:ListBucket", "lab", "")
    assert not any(allows([text], action, "lab/a") for action in (*WRITES, *NEVER, *ADMIN))


def test_more_places_than_a_key_s_policy_can_hold_are_refused_in_words() -> None:
    places = tuple(("lab", f"{'x' * 60}{n}/") for n in range(50))
    with pytest.raises(BadInput, match="50 places"):
        narrowed(Narrowing(places))


def test_every_permission_of_the_protocol_has_a_meaning_here() -> None:
    assert set(policy._ACCESS) == set(Permission)
