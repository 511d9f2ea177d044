"""Deletes what lies in a workspace, with a key of its owner, over S3. Nothing outside its prefix is named or touched.

On a bucket that keeps versions, earlier versions stay: no key of wio's may delete those (4-storage).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from protocol.errors import NotAllowed, StorageRefused, StorageUnreachable
from protocol.names import shown
from wio.credentials import Place

_PASSES: Final = 3
"""How often the whole is listed again for what was written meanwhile, before saying that somebody goes on writing."""
_NOT_IN_XML = re.compile("[\x00-\x1f\x7f\ufffe\uffff]")
"""What a request that deletes many keys cannot carry; such keys are deleted one by one."""
_DENIED: Final = frozenset({"AccessDenied", "InvalidAccessKeyId", "InvalidTokenId"})


class Emptied(msgspec.Struct, frozen=True):
    """How much was deleted."""

    objects: int = 0
    bytes: int = 0


def empty(client: Any, place: Place, seen: Callable[[Emptied], None]) -> Emptied:
    """Delete every object of a workspace; ``client`` is an S3 client of botocore. ``seen`` is told after every thousand.

    Raises NotAllowed or StorageRefused where the storage keeps a file, StorageUnreachable where it does not answer. What was
    deleted until then stays deleted.
    """
    try:
        return _empty(client, place, seen)
    except ClientError as error:
        raise _refused(place, dict(error.response.get("Error", {})), place.prefix) from error
    except BotoCoreError as error:
        raise StorageUnreachable(f"The storage of node {place.node} does not answer: {error}.") from error


def _empty(client: Any, place: Place, seen: Callable[[Emptied], None]) -> Emptied:
    done = Emptied()
    for _ in range(_PASSES):
        found, after = 0, ""
        while True:
            page = client.list_objects_v2(Bucket=place.bucket, Prefix=place.prefix, StartAfter=after).get("Contents", [])
            if not page:
                break
            _delete(client, place, [str(one["Key"]) for one in page])
            found, after = found + len(page), str(page[-1]["Key"])
            done = Emptied(done.objects + len(page), done.bytes + sum(int(one["Size"]) for one in page))
            seen(done)
        if not found:
            return done
    raise StorageRefused(
        f"Somebody goes on writing into {place.workspace}: it was not empty after {done.objects:,} files were deleted.",
        todo="Archive it or end its shares, then try again.",
    )


def _delete(client: Any, place: Place, keys: Sequence[str]) -> None:
    odd = [key for key in keys if _NOT_IN_XML.search(key)]
    plain = [{"Key": key} for key in keys if not _NOT_IN_XML.search(key)]
    for key in odd:
        client.delete_object(Bucket=place.bucket, Key=key)
    if plain:
        answer = client.delete_objects(Bucket=place.bucket, Delete={"Objects": plain, "Quiet": True})
        for error in answer.get("Errors", [])[:1]:
            raise _refused(place, error, str(error.get("Key", "")))


def _refused(place: Place, error: dict[str, Any], key: str) -> NotAllowed | StorageRefused:
    code = str(error.get("Code", "")) or "nothing"
    what = f"The storage of node {place.node} refused to delete {shown(key)}"
    if code in _DENIED:
        return NotAllowed(f"{what}: your key may not.", todo=f"wio why YOU {place.workspace} says why.")
    return StorageRefused(f"{what}: {shown(str(error.get('Message') or code))}.")
