"""People at work: threads that put, overwrite, copy and delete objects in one bucket, whatever goes wrong around them."""

from __future__ import annotations

import io
import random
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

FOLDER: Final = "data/"
PACE_S: Final = 0.01
BUSY: Final = 300
"""Steps after which a writer takes its time: what goes wrong may take long, and everything is compared in the end."""
LATER_PACE_S: Final = 0.1
TROUBLE_S: Final = 0.05
_ODD: Final = ("ä ö", "a+b&c", "100%", "…", "trailing ", "日本")


class Writer:
    """One writer. Its keys are its own, so that what it remembers of them is not far from the truth."""

    def __init__(self, client: Any, bucket: str, name: str, chance: random.Random) -> None:
        self._client = client
        self._bucket = bucket
        self._name = name
        self._chance = chance
        self._keys: list[str] = []
        self._next = 0

    def step(self) -> str:
        """Do one thing; return what. Raises what boto3 raises: it may have been done all the same."""
        chance = self._chance
        what = chance.choices(("put", "over", "copy", "delete", "many"), (50, 20, 12, 15, 3))[0] if self._keys else "put"
        match what:
            case "put":
                self._put(self._new_key())
            case "over":
                self._put(chance.choice(self._keys))
            case "copy":
                key, source = self._new_key(), chance.choice(self._keys)
                self._client.copy_object(Bucket=self._bucket, Key=key, CopySource={"Bucket": self._bucket, "Key": source})
                self._keys.append(key)
            case "delete":
                key = self._keys.pop(chance.randrange(len(self._keys)))
                self._client.delete_object(Bucket=self._bucket, Key=key)
            case _:
                doomed = {self._keys.pop(chance.randrange(len(self._keys))) for _ in range(min(8, len(self._keys)))}
                self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": [{"Key": key} for key in doomed]})
        return what

    def _new_key(self) -> str:
        self._next += 1
        odd = f" {self._chance.choice(_ODD)}" if self._chance.random() < 0.1 else ""
        return f"{FOLDER}{self._name}/set-{self._next % 7}/file-{self._next:05}{odd}"

    def _put(self, key: str) -> None:
        self._client.put_object(Bucket=self._bucket, Key=key, Body=self._chance.randbytes(self._chance.randrange(64)))
        if key not in self._keys:
            self._keys.append(key)


class Work:
    """Some writers on one bucket. ``done`` counts what they did, ``failed`` what did not go well for them."""

    def __init__(self, make_client: Any, bucket: str, chance: random.Random, *, writers: int = 2) -> None:
        self._writers = [
            Writer(make_client(), bucket, f"w{number}", random.Random(chance.random()))  # noqa: S311 - repeatable on purpose
            for number in range(writers)
        ]
        self._stop = threading.Event()
        self._told = threading.Condition()
        self._may = threading.Event()
        self._may.set()
        self.done: Counter[str] = Counter()
        self.failed = 0

    @contextmanager
    def going(self) -> Iterator[None]:
        """Let them work until the end of the block."""
        self._stop.clear()
        threads = [threading.Thread(target=self._go, args=(writer,)) for writer in self._writers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._may.set()
            for thread in threads:
                thread.join()

    def _go(self, writer: Writer) -> None:
        steps = 0
        while not self._stop.wait(PACE_S if steps < BUSY else LATER_PACE_S):
            steps += 1
            self._may.wait()
            try:
                what = writer.step()
            except (BotoCoreError, ClientError, OSError):
                self.failed += 1
                self._stop.wait(TROUBLE_S)
            else:
                with self._told:
                    self.done[what] += 1
                    self._told.notify_all()

    def rest(self) -> None:
        """Let everybody pause."""
        self._may.clear()

    def go_on(self) -> None:
        """Let everybody work again."""
        self._may.set()

    def burst(self, steps: int) -> None:
        """Do so many things, here and now."""
        for number in range(steps):
            self.done[self._writers[number % len(self._writers)].step()] += 1

    def more(self, steps: int, *, seconds: float = 60) -> None:
        """Wait until so many more things have been done."""
        with self._told:
            goal = self.done.total() + steps
            if not self._told.wait_for(lambda: self.done.total() >= goal, seconds):
                raise TimeoutError(f"the writers did not do {steps} things within {seconds:g} s")


def pour(client: Any, bucket: str, keys: Sequence[str]) -> None:
    """Put many small objects at once: the server unpacks an archive by itself, and says so in one event."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for key in keys:
            member = tarfile.TarInfo(key)
            body = key.encode()
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    client.meta.events.register("before-call.s3.PutObject", _unpack)
    client.put_object(Bucket=bucket, Key="archive.tar", Body=packed.getvalue())


def _unpack(params: dict[str, dict[str, str]], **_: object) -> None:
    params["headers"]["X-Amz-Meta-Snowball-Auto-Extract"] = "true"
