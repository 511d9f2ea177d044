"""What a person installs: the client library and the ``wio`` command.

The names below are what programs use; each is loaded when it is first asked for, so that a command that needs none of
them starts at once.

    import wio

    s3 = wio.boto3_client("alice/scans")      # refreshes its own keys
    place = wio.locate("alice/scans/sub-014/T1w.nii")
    s3.get_object(Bucket=place.bucket, Key=place.key)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wio.client import AsyncClient, Client
    from wio.s3 import boto3_client, boto3_session, botocore_session, locate

__all__ = ["AsyncClient", "Client", "boto3_client", "boto3_session", "botocore_session", "locate"]

_WHERE = {
    "AsyncClient": "wio.client",
    "Client": "wio.client",
    "boto3_client": "wio.s3",
    "boto3_session": "wio.s3",
    "botocore_session": "wio.s3",
    "locate": "wio.s3",
}


def __getattr__(name: str) -> Any:
    """Load one of the names above."""
    if name not in _WHERE:
        raise AttributeError(f"module 'wio' has no attribute {name!r}")
    import importlib  # noqa: PLC0415  - only whoever asks pays for it

    return getattr(importlib.import_module(_WHERE[name]), name)
