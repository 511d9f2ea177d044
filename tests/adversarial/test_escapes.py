"""Ways out of a key that were thought of, each tried with a real key of the real agent on a real MinIO.

Every one must end in a refusal, and afterwards nothing that is not the person's may be read, changed or new. A server that
lets one of them through is a server on which wio must not be used: then the test has to fail.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import io
import json
import tarfile
import urllib.parse
import zipfile
from typing import Any

import aiohttp
import boto3
import pytest
from botocore.config import Config

from protocol.errors import StorageRefused
from protocol.grants import Grant, Permission
from spoke_agent.storage.admin import BASE, Admin
from spoke_agent.storage.admin_cipher import decrypt, encrypt
from spoke_agent.storage.connection import Reply
from spoke_agent.storage.placing import parent_key
from spoke_agent.storage.policy import Access, Pattern, document
from spoke_agent.storage.sigv4 import Key
from tests.adversarial.conftest import SECRET, Prisoner, key_of
from tests.spoke_agent.access.bench import BOB

pytestmark = pytest.mark.real

REFUSED = {400, 401, 403, 404, 405, 426, 501}
"""426: a call that this way of running the server does not have."""
EVERYTHING = document(frozenset({Pattern("everything", "", Access.WRITE)})).replace(b"everything", b"*")


def client(bob: Prisoner, key: Key | None = None) -> Any:
    key = key or key_of(bob.credential)
    return boto3.client(
        "s3",
        endpoint_url=bob.real.server.url,
        aws_access_key_id=key.access_key,
        aws_secret_access_key=key.secret_key,
        aws_session_token=key.session_token or None,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, signature_version="s3v4", retries={"max_attempts": 1}),
    )


async def raw(method: str, url: str, **options: Any) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.request(method, url, **options) as answer:
        return answer.status, await answer.read()


# ------------------------------------------------------------------------------------------------ a key for good


async def test_a_key_makes_no_permanent_key_of_any_kind(bob: Prisoner) -> None:
    secret = bob.credential.secret_key
    parent = bob.real.node._parents._parent(next(one for one in bob.real.access._principals if one.subject == BOB).holder)
    for body in (
        {"name": "mine"},
        {"name": "mine", "accessKey": "MINEMINEMINE", "secretKey": "a-secret-of-my-own"},
        {"name": "mine", "targetUser": parent.access_key},
        {"name": "mine", "targetUser": bob.real.owner.access_key},
        {"name": "mine", "policy": json.loads(EVERYTHING)},
    ):
        assert await bob.admin.try_service_account(json.dumps(body).encode()) == 403, body
    for call, query, body in (
        ("idp/ldap/add-service-account", [], {"name": "mine"}),
        ("update-service-account", [("accessKey", parent.access_key)], {"newStatus": "on"}),
        ("add-user", [("accessKey", "mine")], {"secretKey": "a-secret-of-mine", "status": "enabled"}),
        ("add-user", [("accessKey", parent.access_key)], {"secretKey": "a-secret-of-mine", "status": "enabled"}),
        ("add-user", [("accessKey", bob.credential.access_key)], {"secretKey": "a-secret-of-mine", "status": "enabled"}),
        ("set-user-status", [("accessKey", parent.access_key), ("status", "enabled")], {}),
        (
            "set-user-or-group-policy",
            [("policyName", "readwrite"), ("userOrGroup", parent.access_key), ("isGroup", "false")],
            {},
        ),
        ("add-canned-policy", [("name", f"{parent.access_key}--0")], json.loads(EVERYTHING)),
        ("update-group-members", [], {"group": "g", "members": [parent.access_key], "isRemove": False}),
        ("import-iam-v2", [], {}),
        ("set-config-kv", [], {}),
    ):
        sent = json.dumps(body).encode()
        method = "POST" if call.startswith("update-service") else "PUT"
        for what in (sent, encrypt(secret, sent)):
            assert (await bob.admin._ask(method, call, query, what)).status in REFUSED, call
    for call in ("list-users", "list-canned-policies", "info", "config", "export-iam", "get-config-kv"):
        assert await bob.admin.status("GET", call) in REFUSED, call
    own = await bob.admin._ask("GET", "list-service-accounts")
    assert not json.loads(decrypt(secret, own.body))["accounts"], "he may ask for his own, and has none"
    assert await bob.admin.status("GET", "list-service-accounts", [("user", bob.real.owner.access_key)]) == 403
    assert await bob.admin.status("GET", "user-info", [("accessKey", parent.access_key)]) == 403
    assert await bob.admin.status("DELETE", "remove-user", [("accessKey", bob.real.owner.access_key)]) == 403
    await bob.real.set(BOB, 2)
    assert await bob.real.status(bob.credential, "GET", f"{bob.mine[0]}/a.txt") == 403, "what he tried kept nothing open"


async def test_a_key_hands_itself_on_to_no_other_key(bob: Prisoner) -> None:
    real = bob.real
    for action in ("AssumeRole", "GetFederationToken", "GetSessionToken", "AssumeRoleWithCustomToken"):
        form = urllib.parse.urlencode({"Action": action, "Version": "2011-06-15", "DurationSeconds": "604800", "Name": "x"})
        headers = {"content-type": "application/x-www-form-urlencoded"}
        reply = await real.outside._connection.ask(
            key_of(bob.credential), "POST", "/", (), form.encode(), service="sts", headers=headers
        )
        assert reply.status in REFUSED, action
        assert b"SecretAccessKey" not in reply.body


async def test_a_session_token_is_bound_to_its_key_and_cannot_be_written_anew(bob: Prisoner) -> None:
    real, credential, alice = bob.real, bob.credential, bob.alice
    at = f"{bob.theirs[0]}/a.txt"
    head, body, signature = credential.session_token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    agent = real.user.access_key
    for changed in (
        {"parent": agent},
        {"sub": agent},
        {"exp": 4_000_000_000},
        {"accessKey": agent},
        {"parent": real.owner.access_key},
    ):
        forged = base64.urlsafe_b64encode(json.dumps(claims | changed).encode()).decode().rstrip("=")
        none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
        own = hmac.digest(credential.secret_key.encode(), f"{head}.{forged}".encode(), "sha512")
        signed = base64.urlsafe_b64encode(own).decode().rstrip("=")
        for token in (f"{head}.{forged}.{signature}", f"{none}.{forged}.", f"{head}.{forged}.{signed}", f"{head}.{forged}."):
            key = Key(credential.access_key, credential.secret_key, token)
            assert await real.status(key, "GET", at) in REFUSED, changed
    mixed = Key(credential.access_key, credential.secret_key, alice.session_token)
    assert await real.status(mixed, "GET", at) in REFUSED
    assert await real.status(Key(credential.access_key, credential.secret_key), "GET", f"{bob.mine[0]}/a.txt") in REFUSED


async def test_the_secret_of_a_parent_is_none_that_anybody_could_guess(bob: Prisoner) -> None:
    real = bob.real
    parent = real.node._parents._parent(next(one for one in real.access._principals if one.subject == BOB).holder)
    for secret in ("", parent.access_key, bob.credential.secret_key, parent_key(bytes(32), parent.access_key).secret_key):
        assert await real.status(Key(parent.access_key, secret or "x"), "GET", f"{bob.mine[0]}/a.txt") == 403
    # Even with it (only the agent has it) a parent is no more than its person.
    assert await Admin(real.outside._connection, parent).try_service_account(b'{"name":"mine"}') == 403
    assert await real.status(parent, "GET", f"{bob.theirs[0]}/a.txt") == 403


# ------------------------------------------------------------------------------------------------ links and forms


async def test_a_presigned_link_of_any_life_dies_with_the_grant(bob: Prisoner) -> None:
    bucket, key = bob.shared, "bob/ws/a.txt"
    s3 = client(bob)
    links = {
        "get": s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}, ExpiresIn=604_800),
        "list": s3.generate_presigned_url("list_objects_v2", {"Bucket": bucket, "Prefix": "bob/ws/"}, ExpiresIn=604_800),
    }
    put = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "bob/ws/new"}, ExpiresIn=604_800)
    outside = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "alice/ws/a.txt"}, ExpiresIn=60)
    s3.close()
    assert [(await raw("GET", link))[0] for link in links.values()] == [200, 200]
    assert (await raw("PUT", put, data=b"x"))[0] == 200
    assert (await raw("GET", outside))[0] == 403
    moved = links["get"].replace("bob/ws/a.txt", "alice/ws/a.txt")
    assert (await raw("GET", moved))[0] == 403
    await bob.real.set(BOB, 2)
    assert [(await raw("GET", link))[0] for link in links.values()] == [403, 403]
    assert (await raw("PUT", put, data=b"y"))[0] == 403
    await bob.unharmed()


async def post(bob: Prisoner, fields: dict[str, str], conditions: list[Any], *, bucket: str) -> int:
    """Post a browser's form, signed with bob's key."""
    credential = bob.credential
    now = dt.datetime.now(dt.UTC)
    day = now.strftime("%Y%m%d")
    signing = {
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"{credential.access_key}/{day}/us-east-1/s3/aws4_request",
        "x-amz-date": now.strftime("%Y%m%dT%H%M%SZ"),
        "x-amz-security-token": credential.session_token,
    }
    whole = [*conditions, *({name: value} for name, value in signing.items())]
    policy = {"expiration": (now + dt.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.000Z"), "conditions": whole}
    encoded = base64.b64encode(json.dumps(policy).encode()).decode()
    secret = f"AWS4{credential.secret_key}".encode()
    for part in (day, "us-east-1", "s3", "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    form = aiohttp.FormData()
    signature = hmac.digest(secret, encoded.encode(), "sha256").hex()
    for name, value in {**fields, **signing, "policy": encoded, "x-amz-signature": signature}.items():
        form.add_field(name, value)
    form.add_field("file", b"posted", filename="../../alice/ws/a.txt")
    return (await raw("POST", f"{bob.real.server.url}/{bucket}", data=form))[0]


async def test_a_form_posts_nothing_outside(bob: Prisoner) -> None:
    bucket = bob.shared
    any_key = ["starts-with", "$key", ""]
    assert await post(bob, {"key": "bob/ws/posted"}, [{"bucket": bucket}, any_key], bucket=bucket) in {200, 204}, (
        "it can be done"
    )
    for key in ("alice/ws/a.txt", "bob/ws/../../alice/ws/a.txt", "alice/ws/${filename}", "${filename}", "/alice/ws/a.txt"):
        assert await post(bob, {"key": key}, [{"bucket": bucket}, any_key], bucket=bucket) in REFUSED, key
    for elsewhere in (bob.other, bob.alices_bucket):
        for said in (bucket, elsewhere):
            assert await post(bob, {"key": "bob/ws/x"}, [{"bucket": said}, any_key], bucket=elsewhere) in REFUSED
    await bob.real.set(BOB, 2)
    assert await post(bob, {"key": "bob/ws/posted2"}, [{"bucket": bucket}, any_key], bucket=bucket) == 403
    await bob.unharmed()


# ------------------------------------------------------------------------------------------------ by way of the server


async def test_an_archive_unpacks_nothing_outside(bob: Prisoner) -> None:
    names = [
        "../../alice/ws/a.txt",
        "../../../" + bob.other + "/a.txt",
        "/alice/ws/b",
        "alice/ws/c",
        "..",
        "a/../../alice/ws/d",
    ]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../alice/ws/a.txt"
        tar.addfile(link)
    body = packed.getvalue()
    for headers in (
        {"x_amz_meta_snowball_auto_extract": "true"},
        {"x_amz_meta_minio_snowball_prefix": "alice/ws", "x_amz_meta_snowball_auto_extract": "true"},
        {"x_amz_meta_minio_snowball_prefix": "/../alice/ws/", "x_amz_meta_snowball_auto_extract": "true"},
        {"x_amz_meta_snowball_auto_extract": "true", "x_amz_meta_minio_snowball_ignore_errors": "true"},
    ):
        for place in bob.mine:
            await bob.real.ask(bob.credential, "PUT", f"{place}/t.tar", (), body, **headers)
        await bob.unharmed()
    for place in (*bob.theirs, *bob.read):
        status = await bob.real.status(
            bob.credential, "PUT", f"{place}/t.tar", (), body, x_amz_meta_snowball_auto_extract="true"
        )
        assert status == 403


async def test_nothing_is_copied_out_of_a_place_that_is_shut(bob: Prisoner) -> None:
    real, credential = bob.real, bob.credential
    shut = [f"{place}/a.txt" for place in bob.theirs]
    at = f"{bob.mine[0]}/stolen"
    for source in shut:
        for spelled in (
            source,
            source[1:],
            urllib.parse.quote(source),
            source.replace("/a.txt", "/./a.txt"),
            f"{source}?versionId=null",
        ):
            assert await real.status(credential, "PUT", at, (), x_amz_copy_source=spelled) in REFUSED, spelled
    through = f"{bob.mine[0]}/../../alice/ws/a.txt"
    assert await real.status(credential, "PUT", at, (), x_amz_copy_source=through) in REFUSED
    begun = await real.ask(credential, "POST", at, [("uploads", "")])
    upload = begun.body.decode().partition("<UploadId>")[2].partition("<")[0]
    for source in (*shut, through):
        query = [("partNumber", "1"), ("uploadId", upload)]
        for headers in ({}, {"x_amz_copy_source_range": "bytes=0-3"}):
            assert await real.status(credential, "PUT", at, query, x_amz_copy_source=source, **headers) in REFUSED, source
    assert not await real.admin.exists(bob.shared, "bob/ws/stolen")
    assert await real.status(credential, "PUT", at, (), x_amz_copy_source=f"{bob.read[0]}/a.txt") == 200, (
        "what he may read, he may copy"
    )
    for target in bob.theirs:
        assert await real.status(credential, "PUT", f"{target}/planted", (), x_amz_copy_source=f"{bob.mine[0]}/a.txt") == 403
    await bob.unharmed()


SELECT = (
    b"<SelectObjectContentRequest><Expression>select * from s3object</Expression><ExpressionType>SQL</ExpressionType>"
    b"<InputSerialization><CSV/></InputSerialization><OutputSerialization><CSV/></OutputSerialization>"
    b"</SelectObjectContentRequest>"
)


async def test_select_and_a_look_into_an_archive_read_nothing_that_is_shut(bob: Prisoner) -> None:
    real = bob.real
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inside.csv", SECRET.decode())
    for place in (*bob.theirs, *bob.mine):
        bucket, _, prefix = place[1:].partition("/")
        await real.admin.put(bucket, f"{prefix}/z.zip".lstrip("/"), packed.getvalue())
    for place in bob.theirs:
        for reply in (
            await real.ask(bob.credential, "POST", f"{place}/a.txt", [("select", ""), ("select-type", "2")], SELECT),
            await real.ask(bob.credential, "GET", f"{place}/z.zip/inside.csv", (), x_minio_extract="true"),
            await real.ask(bob.credential, "HEAD", f"{place}/z.zip/inside.csv", (), x_minio_extract="true"),
            await real.ask(bob.credential, "GET", f"{place}/a.txt", [("partNumber", "1")]),
            await real.ask(
                bob.credential, "GET", f"{place}/a.txt", [("attributes", "")], x_amz_object_attributes="ETag,ObjectSize"
            ),
            await real.ask(bob.credential, "GET", f"{place}/a.txt", [("tagging", "")]),
            await real.ask(bob.credential, "GET", f"{place}/a.txt", [("acl", "")]),
            await real.ask(bob.credential, "GET", f"{place}/a.txt", [("torrent", "")]),
            await real.ask(bob.credential, "GET", f"{place}/a.txt", [("lambdaArn", "arn:minio:s3-object-lambda::f:webhook")]),
        ):
            assert reply.status in REFUSED, reply
            assert SECRET not in reply.body
    listing = [("list-type", "2"), ("prefix", "z.zip/")]
    listed = await real.ask(bob.credential, "GET", f"/{bob.alices_bucket}", listing, x_minio_extract="true")
    assert listed.status == 403
    inside = await real.ask(bob.credential, "GET", f"{bob.mine[1]}/z.zip/inside.csv", (), x_minio_extract="true")
    assert inside.body == SECRET, "what lies in his own archive is his to see"


# ------------------------------------------------------------------------------------------------ names


FORGERIES: tuple[tuple[list[tuple[str, str]], dict[str, str]], ...] = (
    ([("list-type", "2")], {}),
    ([("list-type", "2"), ("prefix", "")], {"prefix": "bob/ws/"}),
    ([("list-type", "2"), ("prefix", "a")], {"Prefix": ""}),
    ([("list-type", "2"), ("prefix", ""), ("Prefix", "bob/ws/")], {}),
    ([("list-type", "2"), ("prefix", "bob/ws/"), ("prefix", "")], {}),
    ([("list-type", "2"), ("prefix", ""), ("prefix", "bob/ws/")], {}),
    ([("prefix", ""), ("marker", "")], {"prefix": "bob/ws/"}),
    ([("versions", ""), ("prefix", "")], {"prefix": "bob/ws/"}),
    ([("uploads", ""), ("prefix", "")], {"prefix": "bob/ws/"}),
    ([("list-type", "2"), ("metadata", "true"), ("prefix", "")], {"prefix": ""}),
    ([("events", "s3:ObjectCreated:*"), ("prefix", ""), ("suffix", "")], {}),
)


async def test_names_in_a_bucket_of_its_own_are_shut_to_every_forgery(bob: Prisoner) -> None:
    for bucket in (bob.alices_bucket, bob.other):
        for query, headers in FORGERIES:
            reply = await bob.real.ask(bob.credential, "GET", f"/{bucket}", query, **headers)
            assert reply.status == 403, (bucket, query, headers)
            assert b"a.txt" not in reply.body
        for asked in ("location", "policy", "versioning", "notification", "lifecycle", "tagging", "object-lock", "replication"):
            assert await bob.real.status(bob.credential, "GET", f"/{bucket}", [(asked, "")]) in REFUSED, asked
        assert await bob.real.status(bob.credential, "HEAD", f"/{bucket}") in REFUSED


async def test_with_the_prefix_layout_names_may_show_and_contents_never_do(bob: Prisoner) -> None:
    """The known weakness of these servers (isolates_names: no), said to the owner; whatever is listed stays shut."""
    shown = [
        (query, headers)
        for query, headers in FORGERIES
        if b"alice/ws/a.txt" in (await bob.real.ask(bob.credential, "GET", f"/{bob.shared}", query, **headers)).body
    ]
    facts = await bob.real.node.probe()
    assert bool(shown) == (facts.isolates_names == "no"), "the probe finds out what is true here"
    for query, headers in FORGERIES:
        for name in ("alice/ws/a.txt", "alice/ws/"):
            reply = await bob.real.ask(bob.credential, "GET", f"/{bob.shared}/{name}", query, **headers)
            assert reply.status in REFUSED
            assert SECRET not in reply.body


async def test_uploads_of_others_are_neither_listed_nor_touched(bob: Prisoner) -> None:
    real = bob.real
    for place in ("alice/ws/big", "bob/ws/big"):
        begun = await real.ask(real.owner, "POST", f"/{bob.shared}/{place}", [("uploads", "")])
        upload = begun.body.decode().partition("<UploadId>")[2].partition("<")[0]
        if place.startswith("alice"):
            theirs = upload
    for query in ([("uploads", "")], [("uploads", ""), ("prefix", "bob/ws/")], [("uploads", ""), ("prefix", "alice/ws/big")]):
        assert await real.status(bob.credential, "GET", f"/{bob.shared}", query) == 403
    at = f"/{bob.shared}/alice/ws/big"
    for method, query in (
        ("GET", [("uploadId", theirs)]),
        ("DELETE", [("uploadId", theirs)]),
        ("PUT", [("uploadId", theirs), ("partNumber", "1")]),
        ("POST", [("uploadId", theirs)]),
    ):
        assert await real.status(bob.credential, method, at, query, b"x" if method != "GET" else b"") == 403
    # Another's upload under one's own name: it is not there.
    assert await real.status(bob.credential, "GET", f"{bob.mine[0]}/big", [("uploadId", theirs)]) == 404
    assert [one.key for one in await real.admin.uploads(bob.shared)] == ["alice/ws/big", "bob/ws/big"]


async def test_what_the_server_says_of_the_account_shows_nothing_of_others(bob: Prisoner) -> None:
    reply = await bob.admin._ask("GET", "accountinfo", [("prefix-usage", "true")])
    said = reply.body + (
        decrypt(bob.credential.secret_key, reply.body) if reply.status == 200 and reply.body[:1] != b"{" else b""
    )
    assert bob.alices_bucket.encode() not in said
    assert bob.other.encode() not in said
    for place in ("alice/ws", "wio--" + bob.real.label + "--agent"):
        assert place.encode() not in said
    buckets = await bob.real.ask(bob.credential, "GET", "/")
    assert bob.alices_bucket.encode() not in buckets.body
    assert bob.other.encode() not in buckets.body
    for call in (
        "datausageinfo",
        "storageinfo",
        "top/locks",
        "metrics",
        "log",
        "trace",
        "bandwidth",
        "kms/status",
        "inspect-data",
    ):
        assert await bob.admin.status("GET", call) in REFUSED, call
    for path in (
        "/minio/v2/metrics/cluster",
        "/minio/metrics/v3",
        "/minio/admin/v4/info",
        "/minio/console/",
        BASE + "../v3/info",
    ):
        assert await bob.real.status(bob.credential, "GET", path) in REFUSED, path


# ------------------------------------------------------------------------------------------------ deleting


async def versioned(bob: Prisoner) -> Reply:
    """Keep versions in bob's own bucket; return the answer to his writing over a file there."""
    on = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
    assert await bob.real.status(bob.real.owner, "PUT", f"/{bob.own_bucket}", [("versioning", "")], on) == 200
    await bob.real.admin.put(bob.own_bucket, "kept.txt", b"old")
    return await bob.real.ask(bob.credential, "PUT", f"/{bob.own_bucket}/kept.txt", (), b"new")


async def test_old_versions_are_neither_deleted_nor_unlocked_one_by_one(bob: Prisoner) -> None:
    newest = (await versioned(bob)).headers["x-amz-version-id"]
    versions = (await bob.real.ask(bob.real.owner, "GET", f"/{bob.own_bucket}", [("versions", "")])).body.decode()
    old = [part.partition("<")[0] for part in versions.split("<VersionId>")[1:]]
    assert len(old) >= 2
    assert newest in old
    at = f"/{bob.own_bucket}/kept.txt"
    for version in old:
        assert await bob.real.status(bob.credential, "DELETE", at, [("versionId", version)]) == 403
        assert (
            await bob.real.status(bob.credential, "PUT", at, [("retention", ""), ("versionId", version)], b"<Retention/>")
            in REFUSED
        )
    many = "".join(f"<Object><Key>kept.txt</Key><VersionId>{version}</VersionId></Object>" for version in old)
    body = f"<Delete>{many}</Delete>".encode()
    checked = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    reply = await bob.real.ask(bob.credential, "POST", f"/{bob.own_bucket}", [("delete", "")], body, content_md5=checked)
    assert reply.body.count(b"AccessDenied") >= len(set(old)), reply
    after = (await bob.real.ask(bob.real.owner, "GET", f"/{bob.own_bucket}", [("versions", "")])).body.decode()
    assert all(version in after for version in old)


async def delete_many(bob: Prisoner, bucket: str, names: list[str]) -> Reply:
    body = f"<Delete>{''.join(f'<Object><Key>{name}</Key></Object>' for name in names)}</Delete>".encode()
    checked = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    return await bob.real.ask(bob.credential, "POST", f"/{bucket}", [("delete", "")], body, content_md5=checked)


@pytest.mark.parametrize("permission", [Permission.MANAGE, Permission.WRITE, Permission.TIDY])
async def test_many_deletes_at_once_reach_only_his_own_however_they_are_spelled(bob: Prisoner, permission: Permission) -> None:
    """These servers do not refuse .. in the names of such a request, and follow it: a Deny of wio's policies stops it."""
    await bob.real.set(BOB, 2, bob.real.grant("bob/ws/", permission), Grant(4, bob.own_bucket, "", permission))
    for bucket, names in (
        (
            bob.shared,
            [
                "alice/ws/a.txt",
                "alice/shown/a.txt",
                "bob/ws/../../alice/ws/a.txt",
                "bob/ws/x/../../../alice/ws/a.txt",
                "bob/ws/./../../alice/ws/a.txt",
                "bob/ws//../../alice/ws/a.txt",
                "bob/ws/..//../alice/ws/a.txt",
                "bob/ws/..&#47;..&#47;alice/ws/a.txt",
                "bob/ws/../../alice/ws/",
                "bob/ws/../../alice",
                "bob/ws/../..",
                "bob/ws/..",
                "/bob/ws/../../alice/ws/a.txt",
                f"bob/ws/../../../{bob.other}/a.txt",
                f"bob/ws/../../../{bob.alices_bucket}/a.txt",
                "bob/ws/..\\..\\alice\\ws\\a.txt",
                "bob/ws/%2e%2e/%2e%2e/alice/ws/a.txt",
                "bob/ws/a.txt",
            ],
        ),
        (bob.own_bucket, [f"../{bob.other}/a.txt", f"x/../../{bob.alices_bucket}/a.txt", f"../{bob.shared}/alice/ws/a.txt"]),
        (bob.own_bucket, ["../.minio.sys/config/iam/format.json", "..", "../..", "a.txt"]),
        (bob.alices_bucket, ["a.txt"]),
        (bob.other, ["a.txt"]),
    ):
        await delete_many(bob, bucket, names)
        await bob.unharmed()
    assert (bob.real.server.data / ".minio.sys/config/iam/format.json").exists()
    assert not await bob.real.admin.exists(bob.shared, "bob/ws/a.txt"), "his own go"
    assert not await bob.real.admin.exists(bob.own_bucket, "a.txt")


async def test_the_probe_finds_out_that_such_a_request_is_stopped(bob: Prisoner) -> None:
    [line] = [line for line in (await bob.real.node.probe()).probes if line.capability == "contains-delete"]
    assert line.found == "yes", line.detail


async def test_a_delete_by_force_ends_at_his_own_folder(bob: Prisoner) -> None:
    force = {"x_minio_force_delete": "true"}
    for place in (*bob.theirs, *bob.read, f"/{bob.shared}", f"/{bob.shared}/bob", f"/{bob.shared}/alice"):
        for path in (f"{place}/", place):
            assert await bob.real.status(bob.credential, "DELETE", path, (), **force) in REFUSED, path
    assert await bob.real.status(bob.credential, "DELETE", f"{bob.mine[0]}/../../alice/ws/", (), **force) in REFUSED
    assert await bob.real.status(bob.credential, "DELETE", f"/{bob.own_bucket}", (), **force) in REFUSED, "not even his bucket"
    await bob.unharmed()
    assert await bob.real.status(bob.credential, "DELETE", f"{bob.mine[0]}/", (), **force) == 204, "his own folder he may empty"
    await bob.unharmed()


async def test_a_bucket_is_neither_made_nor_opened_to_the_world(bob: Prisoner) -> None:
    real, credential = bob.real, bob.credential
    public = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": ["*"]},
                    "Action": ["s3:GetObject"],
                    "Resource": [f"arn:aws:s3:::{bob.own_bucket}/*"],
                }
            ],
        }
    ).encode()
    for path, query, body in (
        (f"/{bob.shared}--bob--more", [], b""),
        ("/bobs-own", [], b""),
        (f"/{bob.own_bucket}", [("policy", "")], public),
        (f"/{bob.own_bucket}", [("versioning", "")], b"<VersioningConfiguration/>"),
        (f"/{bob.own_bucket}", [("notification", "")], b"<NotificationConfiguration/>"),
        (f"/{bob.own_bucket}", [("lifecycle", "")], b"<LifecycleConfiguration/>"),
        (f"/{bob.own_bucket}", [("replication", "")], b"<ReplicationConfiguration/>"),
        (f"/{bob.own_bucket}", [("acl", "")], b""),
        (f"/{bob.own_bucket}", [("cors", "")], b"<CORSConfiguration/>"),
        (f"/{bob.own_bucket}/a.txt", [("acl", "")], b""),
        (f"/{bob.own_bucket}/a.txt", [("retention", "")], b"<Retention/>"),
        (f"/{bob.own_bucket}/a.txt", [("legal-hold", "")], b"<LegalHold/>"),
    ):
        status = await real.status(credential, "PUT", path, query, body)
        assert status in REFUSED, (path, query, status)
    assert (await raw("GET", f"{real.server.url}/{bob.own_bucket}/a.txt"))[0] == 403
    assert await real.status(credential, "DELETE", f"/{bob.own_bucket}") in REFUSED
    await bob.unharmed()


# ------------------------------------------------------------------------------------------------ paths


@pytest.mark.parametrize("place", [0, 1])
async def test_no_spelling_of_a_path_leads_out(bob: Prisoner, place: int) -> None:
    base, target = bob.mine[place], bob.theirs[place][1:]
    bucket, _, folder = target.partition("/")
    ups = "../" * base.count("/")
    for spelled in (
        f"{base}/{ups}{target}/a.txt",
        f"{base}/..%2f..%2f{target}/a.txt",
        f"{base}/..\\..\\{folder}/a.txt",
        f"{base}/./../{folder}/a.txt",
        f"{base}//{ups}{target}/a.txt",
        f"//{target}/a.txt",
        f"/{bucket}//{folder}/a.txt",
        f"/{bucket}/./{folder}/a.txt",
        f"/./{target}/a.txt",
        f"{base}/\u2025/\u2025/{folder}/a.txt",
        f"/.minio.sys/buckets/{bucket}",
        "/.minio.sys/config/iam/format.json",
        f"{base}/{ups}.minio.sys/config/config.json",
        "/minio/../" + target + "/a.txt",
    ):
        for method in ("GET", "PUT", "DELETE"):
            reply = await bob.real.ask(bob.credential, method, spelled, (), b"x" if method == "PUT" else b"")
            assert SECRET not in reply.body, (method, spelled)
            inside = method != "GET" and reply.status in {200, 204}  # an odd name, but below his own folder
            assert reply.status in REFUSED or inside, (method, spelled, reply.status)
    await bob.unharmed()


async def test_a_key_of_nobody_and_no_key_at_all_open_nothing(bob: Prisoner) -> None:
    url = bob.real.server.url
    for place in (*bob.mine, *bob.read, *bob.theirs):
        assert (await raw("GET", f"{url}{place}/a.txt"))[0] == 403
        assert (await raw("PUT", f"{url}{place}/b.txt", data=b"x"))[0] == 403
        assert await bob.real.status(Key("nobody-here", "no-secret-at-all"), "GET", f"{place}/a.txt") == 403


async def test_the_agents_own_key_is_in_no_answer_that_a_person_can_get(bob: Prisoner) -> None:
    secret = bob.real.user.secret_key.encode()
    for path in ("/", f"{BASE}accountinfo", f"{bob.mine[0]}/a.txt"):
        assert secret not in (await bob.real.ask(bob.credential, "GET", path)).body
    with pytest.raises(StorageRefused):
        await Admin(bob.real.outside._connection, key_of(bob.credential)).users()
    assert Permission.MANAGE.writes
