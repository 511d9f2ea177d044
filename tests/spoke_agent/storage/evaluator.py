"""Policies judged by a small evaluator of their language, written from AWS's description of how requests are decided.

And beside it what grants say, worked out without any policy: the two must agree, and so must the real server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from protocol.grants import Grant, Permission
from spoke_agent.storage.policy import arrange, document, patterns

READS = ("s3:GetObject",)
ADDS = ("s3:PutObject",)
ENDS = ("s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
REMOVES = ("s3:DeleteObject",)
WRITES = (*ADDS, *ENDS, *REMOVES)
NEVER = ("s3:DeleteObjectVersion", "s3:BypassGovernanceRetention", "s3:PutBucketPolicy", "s3:ListBucketMultipartUploads")
ADMIN = ("admin:CreateServiceAccount", "admin:CreateUser", "admin:ServerInfo")


def like(pattern: str, text: str) -> bool:
    expression = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.fullmatch(expression, text, re.DOTALL) is not None


def matches(statement: dict[str, Any], action: str, resource: str, prefix: str | None) -> bool:
    if not any(like(one, action) for one in statement["Action"]):
        return False
    resources = statement.get("Resource")
    if resources is not None and not any(like(one, f"arn:aws:s3:::{resource}") for one in resources):
        return False
    for operator, keys in statement.get("Condition", {}).items():
        assert operator == "StringLike"
        for key, values in keys.items():
            assert key == "s3:prefix"
            if prefix is None or not any(like(value, prefix) for value in values):
                return False
    return True


def allows(documents: Sequence[bytes], action: str, resource: str, prefix: str | None = None) -> bool:
    statements = [statement for text in documents for statement in json.loads(text)["Statement"]]
    hits = {one["Effect"] for one in statements if matches(one, action, resource, prefix)}
    return hits == {"Allow"}


def compiled(grants: Sequence[Grant]) -> list[bytes]:
    return [document(part) for part in arrange(patterns(grants))]


def grant(bucket: str, prefix: str, permission: Permission = Permission.READ) -> Grant:
    return Grant(1, bucket, prefix, permission)


# What the grants say, in words of their own: nothing here is shared with what compiles them.


def should(grants: Sequence[Grant], action: str, bucket: str, key: str) -> bool:
    if "/../" in f"/{key}" or f"/{key}".endswith("/.."):
        return False  # whatever it is called so, nobody of wio's touches it
    here = [one.permission for one in grants if one.bucket == bucket and key.startswith(one.prefix)]
    if action in READS:
        return any(one.reads for one in here)
    if action in ADDS:
        return any(one.writes or one is Permission.DROP for one in here)
    if action in ENDS:
        return any(one is not Permission.READ for one in here)
    return action in REMOVES and any(one.writes or one is Permission.TIDY for one in here)


def should_list(grants: Sequence[Grant], bucket: str, prefix: str | None) -> bool:
    """Say whether a listing of a bucket is allowed; ``prefix`` None: a listing that asks for none."""
    readable = [one for one in grants if one.bucket == bucket and one.permission.reads]
    return any((prefix or "").startswith(one.prefix) for one in readable)
