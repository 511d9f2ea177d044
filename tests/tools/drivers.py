"""Each tool as a person uses it after ``wio tools setup``, behind one set of verbs, so that all do the same work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

BIN = Path(sys.executable).parent
PARTS = ("--s3-upload-cutoff", "16M", "--s3-chunk-size", "16M")
"""rclone by itself sends up to 200 MiB in one part; s3fs up to 100."""


@dataclass(frozen=True)
class Spot:
    """A folder of a workspace: as wio writes it, and where it lies."""

    path: str
    """``workspace/folder``."""
    node: str
    endpoint: str
    bucket: str
    key: str
    """Without a final slash."""

    def uri(self, name: str = "") -> str:
        """The position of a file in it, as AWS's tools write it."""
        return f"s3://{self.bucket}/{self.key}/{name}"


class Driver(Protocol):
    """A tool. Names are relative to a spot; ``between``: it copies from one node to another by itself."""

    between: bool

    def put(self, file: Path, spot: Spot, name: str) -> None: ...
    def get(self, spot: Spot, name: str, file: Path) -> None: ...
    def names(self, spot: Spot) -> set[str]: ...
    def matching(self, spot: Spot, pattern: str) -> set[str]: ...
    def copy(self, source: Spot, name: str, target: Spot) -> None: ...


class Shell:
    """Runs programs as one person."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)

    def run(self, *words: str | Path) -> str:
        """Return what a program prints; AssertionError with all that it said if it failed."""
        said = self.tried(*words)
        assert said.returncode == 0, f"{words}: {said.stdout}{said.stderr}"
        return said.stdout

    def tried(self, *words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a program, however it ends."""
        return subprocess.run(
            [str(word) for word in words],
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


class Aws(Shell):
    """The AWS command line, with its profile."""

    between = False

    def _aws(self, spot: Spot, *words: str | Path) -> str:
        return self.run(BIN / "aws", "--profile", f"wio-{spot.node}", "s3", *words)

    def put(self, file: Path, spot: Spot, name: str) -> None:
        self._aws(spot, "cp", "--no-progress", file, spot.uri(name))

    def get(self, spot: Spot, name: str, file: Path) -> None:
        self._aws(spot, "cp", "--no-progress", spot.uri(name), file)

    def names(self, spot: Spot) -> set[str]:
        lines = self._aws(spot, "ls", "--recursive", spot.uri()).splitlines()
        return {line.split(maxsplit=3)[3].removeprefix(f"{spot.key}/") for line in lines}

    def matching(self, spot: Spot, pattern: str) -> set[str]:
        words = ("cp", "--recursive", "--dryrun", "--exclude", "*", "--include", pattern, spot.uri(), "/nowhere/")
        lines = self._aws(spot, *words).splitlines()
        return {line.split(" to ")[0].partition(spot.uri())[2] for line in lines}

    def copy(self, source: Spot, name: str, target: Spot) -> None:
        self._aws(source, "cp", "--no-progress", source.uri(name), target.uri(name))


class Rclone(Shell):
    """rclone, with a remote for each node."""

    between = True

    @staticmethod
    def _at(spot: Spot, name: str = "") -> str:
        return f"wio-{spot.node}:{spot.bucket}/{spot.key}/{name}"

    def put(self, file: Path, spot: Spot, name: str) -> None:
        self.run("rclone", "copyto", *PARTS, file, self._at(spot, name))

    def get(self, spot: Spot, name: str, file: Path) -> None:
        self.run("rclone", "copyto", self._at(spot, name), file)

    def names(self, spot: Spot) -> set[str]:
        return set(self.run("rclone", "lsf", "-R", "--files-only", self._at(spot)).splitlines())

    def matching(self, spot: Spot, pattern: str) -> set[str]:
        return set(self.run("rclone", "lsf", "-R", "--files-only", "--include", pattern, self._at(spot)).splitlines())

    def copy(self, source: Spot, name: str, target: Spot) -> None:
        self.run("rclone", "copyto", self._at(source, name), self._at(target, name))


class Mc(Shell):
    """``wio mc``: the real mc."""

    between = True

    def _mc(self, *words: str | Path) -> str:
        return self.run(BIN / "wio", "mc", *words)

    def put(self, file: Path, spot: Spot, name: str) -> None:
        self._mc("cp", file, f"{spot.path}/{name}")

    def get(self, spot: Spot, name: str, file: Path) -> None:
        self._mc("cp", f"{spot.path}/{name}", file)

    def names(self, spot: Spot) -> set[str]:
        rows = [json.loads(line) for line in self._mc("ls", "--json", "-r", f"{spot.path}/").splitlines()]
        return {row["key"].removeprefix(f"{spot.key}/") for row in rows}

    def matching(self, spot: Spot, pattern: str) -> set[str]:
        return {
            line.partition(f"{spot.path}/")[2] for line in self._mc("find", f"{spot.path}/", "--name", pattern).splitlines()
        }

    def copy(self, source: Spot, name: str, target: Spot) -> None:
        self._mc("cp", f"{source.path}/{name}", f"{target.path}/{name}")


class Python(Shell):
    """A library in a program of its own: ``opening`` makes ``client``, and the verbs are its lines."""

    between = False
    opening = ""
    putting = ""
    getting = ""
    listing = ""
    copying = ""

    def _python(self, spot: Spot, lines: str, **values: str) -> str:
        given = {"bucket": spot.bucket, "key": spot.key, "profile": f"wio-{spot.node}", "endpoint": spot.endpoint, **values}
        script = f"import json, sys\ngiven = json.loads(sys.argv[1])\nglobals().update(given)\n{self.opening}\n{lines}\n"
        said = self.tried(sys.executable, "-W", "error", "-c", script, json.dumps(given), AWS_PROFILE=f"wio-{spot.node}")
        assert said.returncode == 0, said.stdout + said.stderr
        return said.stdout

    def put(self, file: Path, spot: Spot, name: str) -> None:
        self._python(spot, self.putting, file=str(file), name=name)

    def get(self, spot: Spot, name: str, file: Path) -> None:
        self._python(spot, self.getting, file=str(file), name=name)

    def names(self, spot: Spot) -> set[str]:
        found = json.loads(self._python(spot, f"{self.listing}\nprint(json.dumps(found))"))
        return {one.partition(f"{spot.key}/")[2] for one in found}

    def matching(self, spot: Spot, pattern: str) -> set[str]:
        return {name for name in self.names(spot) if fnmatch(name, pattern)}

    def copy(self, source: Spot, name: str, target: Spot) -> None:
        self._python(source, self.copying, name=name, to_bucket=target.bucket, to_key=target.key)


class Boto3(Python):
    """boto3, with its profile."""

    opening = 'import boto3\nclient = boto3.Session(profile_name=profile).client("s3")'
    putting = 'client.upload_file(file, bucket, f"{key}/{name}")'
    getting = 'client.download_file(bucket, f"{key}/{name}", file)'
    listing = (
        'pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{key}/")\n'
        'found = [one["Key"] for page in pages for one in page.get("Contents", ())]'
    )
    copying = 'client.copy({"Bucket": bucket, "Key": f"{key}/{name}"}, to_bucket, f"{to_key}/{name}")'


class S3fs(Python):
    """s3fs, with its profile."""

    opening = "import s3fs\nfs = s3fs.S3FileSystem(profile=profile, endpoint_url=endpoint)"
    putting = 'fs.put_file(file, f"{bucket}/{key}/{name}", chunksize=2**24)'
    getting = 'fs.get_file(f"{bucket}/{key}/{name}", file)'
    listing = 'found = fs.find(f"{bucket}/{key}")'
    copying = 'fs.cp_file(f"{bucket}/{key}/{name}", f"{to_bucket}/{to_key}/{name}")'

    def matching(self, spot: Spot, pattern: str) -> set[str]:
        lines = f'print(json.dumps(fs.glob(f"{{bucket}}/{{key}}/**/{pattern}")))'
        return {one.partition(f"{spot.key}/")[2] for one in json.loads(self._python(spot, lines))}


class Pyarrow(Python):
    """PyArrow's own S3, which finds the profile in its environment."""

    opening = (
        "from pyarrow import fs\nscheme, _, host = endpoint.partition('://')\n"
        "s3 = fs.S3FileSystem(endpoint_override=host, scheme=scheme, region='us-east-1')\nhere = fs.LocalFileSystem()"
    )
    putting = 'fs.copy_files(file, f"{bucket}/{key}/{name}", source_filesystem=here, destination_filesystem=s3)'
    getting = 'fs.copy_files(f"{bucket}/{key}/{name}", file, source_filesystem=s3, destination_filesystem=here)'
    listing = (
        'selector = fs.FileSelector(f"{bucket}/{key}", recursive=True)\n'
        "found = [one.path for one in s3.get_file_info(selector) if one.is_file]"
    )
    copying = 's3.copy_file(f"{bucket}/{key}/{name}", f"{to_bucket}/{to_key}/{name}")'


class WioFs(Python):
    """``wio://``, which needs no profile."""

    between = True
    opening = 'import fsspec\nfs = fsspec.filesystem("wio")'
    putting = 'fs.put_file(file, f"{path}/{name}", chunksize=2**24)'
    getting = 'fs.get_file(f"{path}/{name}", file)'
    listing = "found = [one.removeprefix(path) for one in fs.find(path)]\nfound = [key + one for one in found]"
    copying = 'fs.cp_file(f"{path}/{name}", f"{to_path}/{name}")'

    def _python(self, spot: Spot, lines: str, **values: str) -> str:
        return super()._python(spot, lines, path=spot.path, **values)

    def matching(self, spot: Spot, pattern: str) -> set[str]:
        lines = f'print(json.dumps(fs.glob(f"{{path}}/**/{pattern}")))'
        return {one.partition(f"{spot.path}/")[2] for one in json.loads(self._python(spot, lines))}

    def copy(self, source: Spot, name: str, target: Spot) -> None:
        self._python(source, self.copying, name=name, to_path=target.path)


DRIVERS: Mapping[str, type[Shell]] = {
    "aws": Aws,
    "boto3": Boto3,
    "mc": Mc,
    "pyarrow": Pyarrow,
    "rclone": Rclone,
    "s3fs": S3fs,
    "wio": WioFs,
}
