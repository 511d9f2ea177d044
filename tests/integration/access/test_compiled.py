"""Compiled policies on the real server: random grants, random keys, and three that must agree about every request.

What the grants say (worked out without a policy), what the reference evaluator makes of the compiled documents, and what
MinIO answers to a key that the real agent minted. No request changes anything, so one bucket serves every round.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from protocol.grants import Grant, Permission, Subject, SubjectKind
from protocol.messages import GrantsApplied
from spoke_agent.storage.node import Credential
from tests.integration.access.conftest import Real
from tests.spoke_agent.access.bench import EVERYONE, STAFF
from tests.spoke_agent.storage.evaluator import allows, compiled, should, should_list

pytestmark = pytest.mark.real

ROUNDS = 24
KEYS = 14
NO_UPLOAD = "bm8tc3VjaC11cGxvYWQ"
FOLDERS = (
    "a/",
    "a/b/",
    "a/b/c/",
    "ab/",
    "b/",
    "p1/",
    "p10/",
    "ä ö/",
    "q\"uote'/",
    "a-b/",
    "per%25cent/",
    "pl+us/",
    "=cmd()/",
    "~/",
)
ENDS = (
    "x",
    "ä.nii",
    "sp ace",
    "*",
    "?",
    "${aws:username}",
    "$",
    "a\\b",
    "{}",
    "%2e%2e",
    "+",
    "&=;",
    "\u202e",
    "\x01",
    "é́",
    "a?b=c#d",
)
"""What an object may be called, however a policy or a URL would read it."""


class Three:
    """A person with grants from three sides, and the three opinions about a request of theirs."""

    def __init__(self, real: Real, key: Credential, grants: Sequence[Grant]) -> None:
        self.real = real
        self.key = key
        self.grants = grants
        self.documents = compiled(grants)

    async def about(self, bucket: str, name: str) -> list[str]:
        """Return what the three do not agree about at a key: empty where they do."""
        said = []
        for action, method, query in (
            ("s3:GetObject", "HEAD", ()),
            ("s3:PutObject", "PUT", (("partNumber", "1"), ("uploadId", NO_UPLOAD))),
            ("s3:AbortMultipartUpload", "DELETE", (("uploadId", NO_UPLOAD),)),
            ("s3:ListMultipartUploadParts", "GET", (("uploadId", NO_UPLOAD),)),
            ("s3:DeleteObject", "DELETE", ()),
        ):
            status = await self.real.status(self.key, method, f"/{bucket}/{name}", query)
            assert status in {200, 204, 403, 404}, (action, bucket, name, status)
            wanted = should(self.grants, action, bucket, name)
            judged = allows(self.documents, action, f"{bucket}/{name}")
            if not wanted is judged is (status != 403):
                said.append(f"{action} {bucket}/{name!r}: grants {wanted}, evaluator {judged}, server {status}")
        return said

    async def about_listing(self, bucket: str, prefix: str | None) -> list[str]:
        query = [("list-type", "2"), *([("prefix", prefix)] if prefix is not None else [])]
        status = await self.real.status(self.key, "GET", f"/{bucket}", query)
        wanted, judged = should_list(self.grants, bucket, prefix), allows(self.documents, "s3:ListBucket", bucket, prefix)
        if wanted is judged is (status == 200):
            return []
        return [f"list {bucket} {prefix!r}: grants {wanted}, evaluator {judged}, server {status}"]


def drawn(chance: random.Random, buckets: Sequence[str], count: int) -> list[Grant]:
    found = []
    for number in range(count):
        bucket = chance.choice(buckets)
        prefix = "" if "--" in bucket else chance.choice(FOLDERS)
        if chance.random() < 0.1:
            prefix = chance.choice(["", *FOLDERS])  # a root of either layout taken whole, or a folder in a bucket of its own
        found.append(Grant(number + 1, bucket, prefix, chance.choice(list(Permission))))
    return found


async def test_grants_the_reference_evaluator_and_the_real_server_agree_about_every_request(real: Real) -> None:
    chance = random.Random(11)  # noqa: S311 - rounds that can be repeated
    buckets = [real.bucket, f"{real.bucket}--bob--scans", f"{real.bucket}--bob--scans2", f"{real.bucket}--alice--scans"]
    for bucket in buckets:
        await real.admin.make_bucket(bucket)
    asked = 0
    said: list[str] = []
    for number in range(ROUNDS):
        person = Subject(SubjectKind.PERSON, 1000 + number, f"person{number}")
        groups = (STAFF.id,) if chance.random() < 0.5 else ()
        sides = {
            person: drawn(chance, buckets, chance.randrange(1, 6)),
            STAFF: drawn(chance, buckets, chance.randrange(3)),
            EVERYONE: drawn(chance, buckets, chance.randrange(2)),
        }
        if number % 6 == 0:  # several policies: past 150 patterns, and past 300
            more = [Grant(9000 + n, real.bucket, f"many/{n}/", Permission.READ) for n in range(chance.choice([160, 310]))]
            sides[person] += [*more, Grant(8000, real.bucket, "many/7/", Permission.TIDY)]
            chance.shuffle(sides[person])
        for subject, grants in sides.items():
            answer = await real.set(subject, number + 1, *grants, groups=groups if subject is person else ())
            assert isinstance(answer, GrantsApplied)
            assert all(proof.expected for proof in answer.proofs), answer.proofs
        if not any(sides[one] for one in (person, EVERYONE, *([STAFF] if groups else []))):
            continue
        grants = [*sides[person], *sides[EVERYONE], *(sides[STAFF] if groups else [])]
        three = Three(real, await real.key(person, number + 1), grants)
        for _ in range(KEYS):
            bucket = chance.choice(buckets)
            name = chance.choice(["", *FOLDERS, f"many/{chance.randrange(200)}/"]) + chance.choice([*ENDS, "p1", "a"])
            said += await three.about(bucket, name)
            said += await three.about_listing(bucket, chance.choice([None, "", "a", "p1", *FOLDERS, "many/7/", name]))
            asked += 6
    assert said == [], f"{len(said)} of {asked}"
    assert asked > 1500


@pytest.mark.parametrize("count", [149, 150, 151, 450, 600])
async def test_with_many_grants_each_opens_its_own_place_and_goes_alone(real: Real, count: int) -> None:
    person = Subject(SubjectKind.PERSON, 5000 + count, f"person{count}")
    grants = [real.grant(f"w{n:04}/", Permission.WRITE if n % 7 == 0 else Permission.READ) for n in range(count)]
    await real.set(person, 1, *grants)
    key = await real.key(person, 1)
    [line] = [line for line in real.access.budgets() if line.subject == person.name]
    assert (line.patterns, line.policies) == (count, -(-count // 150))
    chance = random.Random(count)  # noqa: S311 - the same every time
    for n in {0, count - 1, *chance.sample(range(count), 10)}:
        assert await real.opens(key, f"w{n:04}/")
        assert await real.opens(key, f"w{n:04}/", Permission.WRITE) is (n % 7 == 0)
    gone = set(chance.sample(range(count), count // 2))
    answer = await real.set(person, 2, *(grant for n, grant in enumerate(grants) if n not in gone))
    assert isinstance(answer, GrantsApplied)
    assert len(answer.proofs) == 4
    assert all(proof.expected for proof in answer.proofs)
    for n in chance.sample(range(count), 20):
        assert await real.opens(key, f"w{n:04}/") is (n not in gone)
