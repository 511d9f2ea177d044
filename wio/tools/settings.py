"""What each tool needs to know of the nodes: files and their text, and how the tool is then used. Pure.

No key is in any of it. Tools of the AWS family are given a profile for each node, ``wio-NODE``, with a ``credential_process``:
they ask ``wio creds`` for a key whenever theirs is about to end, so jobs go on for as long as access does. What a person has to
know of tools that cannot ask is in ``REMARKS``.
"""

from __future__ import annotations

import plistlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from wio.credentials import Place

_SECURE: Final = "https"


class Spot(msgspec.Struct, frozen=True):
    """A workspace or path on a node, where its tools find it."""

    path: str
    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """The position as AWS's tools write it."""
        return f"s3://{self.bucket}/{self.key}"


class Node(msgspec.Struct, frozen=True):
    """A node and what a person wants to reach there."""

    name: str
    endpoint: str
    region: str
    spots: tuple[Spot, ...]

    @property
    def profile(self) -> str:
        """What the node is called in the settings of tools."""
        return f"wio-{self.name}"


class Files(msgspec.Struct, frozen=True):
    """Where things lie: settings of the AWS family, of rclone, and wio's own folder for what tools read."""

    aws: Path
    rclone: Path
    own: Path

    @classmethod
    def of(cls, environment: Mapping[str, str], home: Path, config: Path) -> Files:
        """Return the places for an environment, as the tools themselves find them."""
        settings = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
        return cls(
            aws=Path(environment.get("AWS_CONFIG_FILE") or home / ".aws" / "config").expanduser(),
            rclone=Path(environment.get("RCLONE_CONFIG") or settings / "rclone" / "rclone.conf").expanduser(),
            own=config / "tools",
        )


class Text(msgspec.Struct, frozen=True):
    """What belongs into one file. ``shared``: others write there, too, so it is a section; ``heads`` begin its parts."""

    path: Path
    body: str
    shared: bool = False
    heads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tool:
    """A tool: how it is found (a program, a Python module), what is written for it, how it is used then."""

    name: str
    program: str = ""
    module: str = ""
    profile: bool = True
    """It reads the profiles of the AWS family."""
    files: Callable[[Sequence[Node], Files], list[Text]] = lambda _nodes, _files: []
    usage: Callable[[Node, Files], list[str]] = lambda _node, _files: []


def nodes_of(places: Sequence[Place]) -> tuple[Node, ...]:
    """Return the nodes on which these places lie, each with its own."""
    found: dict[str, list[Place]] = {}
    for place in places:
        found.setdefault(place.node, []).append(place)
    return tuple(
        Node(name, of[0].endpoint, of[0].region, tuple(Spot(one.path, one.bucket, one.key) for one in of))
        for name, of in found.items()
    )


def together(groups: Sequence[Sequence[Node]]) -> tuple[Node, ...]:
    """Return each node of several tools once, with everything that any of them wants there."""
    found: dict[str, Node] = {}
    for node in (node for nodes in groups for node in nodes):
        known = found.get(node.name)
        spots = dict.fromkeys((*(known.spots if known else ()), *node.spots))
        found[node.name] = msgspec.structs.replace(node, spots=tuple(spots))
    return tuple(found.values())


# ------------------------------------------------------------------------------------------------------ profiles


def profiles(nodes: Sequence[Node], file: Path, command: Sequence[str]) -> Text:
    """Return the section of AWS's configuration file. ``command`` starts wio at the right hub, without its arguments."""
    return Text(
        file,
        "\n".join(_profile(node, f"profile {node.profile}", command) for node in nodes),
        shared=True,
        heads=tuple(f"[profile {node.profile}]" for node in nodes),
    )


def process(node: Node, command: Sequence[str]) -> str:
    """Return the command that gives tools a key of a node."""
    return shlex.join([*command, "--any", "--format", "process", *(spot.path for spot in node.spots)])


def _profile(node: Node, head: str, command: Sequence[str]) -> str:
    lines = [f"[{head}]"]
    lines += [f"# {spot.path} is {spot.uri}" for spot in node.spots]
    lines += [f"credential_process = {process(node, command)}"]
    lines += [f"endpoint_url = {node.endpoint}", f"region = {node.region}", "s3 =", "    addressing_style = path", ""]
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------ each tool


def _aws_usage(node: Node, _: Files) -> list[str]:
    return [f"aws --profile {node.profile} s3 ls {spot.uri}" for spot in node.spots]


def _boto3_usage(node: Node, _: Files) -> list[str]:
    return [
        f's3 = boto3.Session(profile_name="{node.profile}").client("s3")',
        f's3 = wio.boto3_client("{node.spots[0].path}")  # the same without any setting',
    ]


def _s3fs_usage(node: Node, _: Files) -> list[str]:
    return [
        f'fs = s3fs.S3FileSystem(profile="{node.profile}", endpoint_url="{node.endpoint}")',
        *(f'fs.ls("{spot.uri}")  # or, of any node: pandas.read_parquet("wio://{spot.path}")' for spot in node.spots),
    ]


def _rclone(nodes: Sequence[Node], files: Files) -> list[Text]:
    remotes = [
        f"[{node.profile}]\n"
        "type = s3\nprovider = Minio\nenv_auth = true\n"
        f"profile = {node.profile}\nendpoint = {node.endpoint}\nregion = {node.region}\n"
        "force_path_style = true\nno_check_bucket = true\n"
        for node in nodes
    ]
    return [Text(files.rclone, "\n".join(remotes), shared=True, heads=tuple(f"[{node.profile}]" for node in nodes))]


def _rclone_usage(node: Node, _: Files) -> list[str]:
    return [f"rclone ls {node.profile}:{spot.bucket}/{spot.key}" for spot in node.spots]


def _duckdb(nodes: Sequence[Node], files: Files) -> list[Text]:
    secrets = [
        f"CREATE OR REPLACE SECRET {_sql_name(node.profile)} (TYPE s3, PROVIDER credential_chain, CHAIN 'process', "
        f"PROFILE {_sql(node.profile)}, REFRESH auto, ENDPOINT {_sql(urlsplit(node.endpoint).netloc)}, "
        f"REGION {_sql(node.region)}, URL_STYLE 'path', USE_SSL {str(urlsplit(node.endpoint).scheme == _SECURE).lower()}, "
        f"SCOPE ({', '.join(_sql(spot.uri) for spot in node.spots)}));\n"
        for node in nodes
    ]
    return [Text(_duckdb_file(files), "".join(["LOAD httpfs;\nLOAD aws;\n", *secrets]))]


def _duckdb_file(files: Files) -> Path:
    return files.own / "duckdb.sql"


def _duckdb_usage(node: Node, files: Files) -> list[str]:
    return [
        f"duckdb -init {shlex.quote(str(_duckdb_file(files)))}    # once before: INSTALL httpfs; INSTALL aws;",
        f'duckdb.execute(open("{_duckdb_file(files)}").read())',
        *(f"FROM '{spot.uri}*.parquet';" for spot in node.spots),
    ]


def _restic_file(node: Node, spot: Spot, files: Files) -> Path:
    name = "-".join(part for part in spot.path.split("/") if part)
    return files.own / f"restic-{node.name}-{name}.env"


def _restic(nodes: Sequence[Node], files: Files) -> list[Text]:
    return [
        Text(
            _restic_file(node, spot, files),
            f"export AWS_PROFILE={shlex.quote(node.profile)}\n"
            f"export AWS_SHARED_CREDENTIALS_FILE={shlex.quote(str(files.own / 'credentials'))}\n"
            f"export RESTIC_REPOSITORY={shlex.quote(f's3:{node.endpoint}/{spot.bucket}/{spot.key}'.rstrip('/'))}\n"
            "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN\n",
        )
        for node in nodes
        for spot in node.spots
    ]


def _restic_usage(node: Node, files: Files) -> list[str]:
    return [f". {shlex.quote(str(_restic_file(node, spot, files)))} && restic snapshots" for spot in node.spots]


def _mc_usage(node: Node, _: Files) -> list[str]:
    return [f"wio mc ls {spot.path}" for spot in node.spots]


def _cyberduck_file(node: Node, files: Files) -> Path:
    return files.own / f"{node.profile}.cyberduckprofile"


def _cyberduck(nodes: Sequence[Node], files: Files) -> list[Text]:
    return [Text(_cyberduck_file(node, files), _cyberduck_profile(node)) for node in nodes]


def _cyberduck_profile(node: Node) -> str:
    parts = urlsplit(node.endpoint)
    secure = parts.scheme == _SECURE
    told = {
        "Protocol": "s3",
        "Vendor": node.profile,
        "Description": f"wio node {node.name}",
        "Scheme": parts.scheme,
        "Default Hostname": parts.hostname or "",
        "Default Port": str(parts.port or (443 if secure else 80)),
        "Default Path": f"/{node.spots[0].bucket}/{node.spots[0].key}".rstrip("/"),
        "Region": node.region,
        "Hostname Configurable": False,
        "Port Configurable": False,
        "Authorization": "AWS4HMACSHA256",
        "Properties": ["s3.bucket.virtualhost.disable=true"],
        "Username Placeholder": "AWS_ACCESS_KEY_ID",
        "Password Placeholder": "AWS_SECRET_ACCESS_KEY",
        "Token Placeholder": "AWS_SESSION_TOKEN",
        "Token Configurable": True,
    }
    return plistlib.dumps(told, sort_keys=False).decode()


def _cyberduck_usage(node: Node, files: Files) -> list[str]:
    return [f"open {shlex.quote(str(_cyberduck_file(node, files)))}, then give it what wio creds {node.spots[0].path} prints"]


def _sql(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _sql_name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


TOOLS: Final[Mapping[str, Tool]] = {
    tool.name: tool
    for tool in (
        Tool("aws", program="aws", usage=_aws_usage),
        Tool("boto3", module="boto3", usage=_boto3_usage),
        Tool("mc", program="mc", profile=False, usage=_mc_usage),
        Tool("rclone", program="rclone", files=_rclone, usage=_rclone_usage),
        Tool("s3fs", module="s3fs", usage=_s3fs_usage),
        Tool("duckdb", program="duckdb", module="duckdb", files=_duckdb, usage=_duckdb_usage),
        Tool("restic", program="restic", profile=False, files=_restic, usage=_restic_usage),
        Tool("cyberduck", program="duck", profile=False, files=_cyberduck, usage=_cyberduck_usage),
    )
}

REMARKS: Final[Mapping[str, str]] = {
    "mc": "mc cannot refresh a key, so nothing is written for it: wio mc gives it a new key at every start, and renews it in "
    'long copies. For one shell: eval "$(wio tools setup mc --print)"; that ends with its key.',
    "cyberduck": "Cyberduck cannot refresh a key: give it a new one when it asks. wio creds --ttl 12h makes a longer one.",
    "restic": "restic asks the server whether the bucket is there, which only a workspace with a bucket of its own answers.",
}
"""What a person has to know of a tool."""
