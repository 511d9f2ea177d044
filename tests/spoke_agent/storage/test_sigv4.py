"""AWS's own published examples, and botocore as a second opinion."""

from __future__ import annotations

import calendar
import hashlib
import time
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from spoke_agent.storage.sigv4 import EMPTY_HASH, Key, Signable, Signer, amz_date, quoted_path, quoted_query

SUITE = Key("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SUITE_TIME = calendar.timegm((2015, 8, 30, 12, 36, 0))
DOCS = Key("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
DOCS_TIME = calendar.timegm((2013, 5, 24, 0, 0, 0))


def signature(header: str) -> str:
    return header.rpartition("Signature=")[2]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ((), "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            (("Param2", "value2"), ("Param1", "value1")),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
    ],
)
def test_it_signs_the_requests_of_the_aws_test_suite(query: tuple[tuple[str, str], ...], expected: str) -> None:
    headers = {"host": "example.amazonaws.com", "x-amz-date": amz_date(SUITE_TIME)}
    request = Signable("GET", "/", quoted_query(query), headers, EMPTY_HASH)
    assert signature(Signer("us-east-1").sign(SUITE, "service", request, SUITE_TIME)) == expected


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "expected"),
    [
        (
            "GET",
            "/test.txt",
            (),
            {"range": "bytes=0-9"},
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test$file.text",
            (),
            {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        ("GET", "/", (("lifecycle", ""),), {}, b"", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "GET",
            "/",
            (("max-keys", "2"), ("prefix", "J")),
            {},
            b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_it_signs_the_examples_of_the_s3_documentation(  # noqa: PLR0917 - one example each
    method: str, path: str, query: tuple[tuple[str, str], ...], headers: dict[str, str], body: bytes, expected: str
) -> None:
    body_hash = hashlib.sha256(body).hexdigest()
    signed = {
        "host": "examplebucket.s3.amazonaws.com",
        "x-amz-content-sha256": body_hash,
        "x-amz-date": amz_date(DOCS_TIME),
        **headers,
    }
    request = Signable(method, quoted_path(path), quoted_query(query), signed, body_hash)
    assert signature(Signer("us-east-1").sign(DOCS, "s3", request, DOCS_TIME)) == expected


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).map(lambda text: text.replace("\0", "")))
def test_it_signs_any_key_and_prefix_as_botocore_does(text: str) -> None:
    path, query = quoted_path(f"/bucket/{text}"), quoted_query([("prefix", text), ("list-type", "2"), ("a b", "")])
    theirs = AWSRequest("GET", f"http://127.0.0.1:9000{path}?{query}")
    S3SigV4Auth(Credentials(DOCS.access_key, DOCS.secret_key, "token"), "s3", "us-east-1").add_auth(theirs)
    stamp = theirs.headers["X-Amz-Date"]
    headers = {
        "host": "127.0.0.1:9000",
        "x-amz-date": stamp,
        "x-amz-content-sha256": theirs.headers["X-Amz-Content-SHA256"],
        "x-amz-security-token": "token",
    }
    now = calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))
    ours = Signer("us-east-1").sign(DOCS, "s3", Signable("GET", path, query, headers, EMPTY_HASH), now)
    assert ours == theirs.headers["Authorization"]


def test_a_key_never_shows_its_secret() -> None:
    assert DOCS.secret_key not in repr(DOCS)
    assert "token-of-mine" not in repr(Key("a", "b", "token-of-mine"))


def test_keys_of_many_people_are_kept_within_bounds() -> None:
    signer = Signer("us-east-1")
    headers = {"host": "h", "x-amz-date": amz_date(DOCS_TIME)}
    request = Signable("GET", "/", "", headers, EMPTY_HASH)
    first = signer.sign(DOCS, "s3", request, DOCS_TIME)
    assert signer.sign(DOCS, "s3", request, DOCS_TIME) == first
    for number in range(2 * Signer.MAX_KEPT):
        signer.sign(Key("a", f"secret {number}"), "s3", request, DOCS_TIME)
    assert len(signer._kept) <= Signer.MAX_KEPT
    assert signer.sign(DOCS, "s3", request, DOCS_TIME) == first


def test_it_presigns_the_example_of_the_s3_documentation() -> None:
    query = Signer("us-east-1").presign(
        DOCS, "GET", "examplebucket.s3.amazonaws.com", "/test.txt", life_s=86_400, now_s=DOCS_TIME
    )
    assert query == (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


@settings(deadline=None)  # botocore takes its time at first
@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30).map(lambda text: text.replace("\0", "")))
def test_it_presigns_any_key_as_botocore_does(text: str) -> None:
    path = quoted_path(f"/bucket/{text}")
    theirs = AWSRequest("PUT", f"https://s3.example:9000{path}")
    S3SigV4QueryAuth(Credentials(DOCS.access_key, DOCS.secret_key, "to/k=en"), "s3", "eu-1", expires=60).add_auth(theirs)
    wanted = dict(parse_qsl(urlsplit(theirs.url).query))
    now = calendar.timegm(time.strptime(wanted["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
    key = Key(DOCS.access_key, DOCS.secret_key, "to/k=en")
    signer = Signer("eu-1")
    assert dict(parse_qsl(signer.presign(key, "PUT", "s3.example:9000", path, life_s=60, now_s=now))) == wanted
    assert signer._kept == {}, "nothing of the key is kept"
