"""``wio mc``, the decisions: a command line with workspace names becomes one or more of mc's own. No I/O.

``read`` takes the words apart, the caller asks where the paths lie, ``plan`` writes mc's command lines; ``mc_run`` starts
them. Keys go to mc in ``MC_HOST_<alias>`` variables of its environment, nowhere else: no argument list, no file.

What counts as a path of a workspace is decided by form alone, never by what lies in the current directory, so a script does
the same everywhere: ``/x``, ``./x``, ``../x``, ``~/x`` and ``-`` are local; a word with a slash or a colon is a workspace
path; a bare word is local for the commands that copy or read local files, else a workspace.

mc's own traps, as tried with mc of 2025-03 and closed here:
- several sources that are not all on one node (or not all local): mc looks the others up where the first one is. ``cp`` and
  ``mv`` become one run for each place, one after the other, into the same folder.
- ``--recursive`` with a folder that has no final slash also takes ``sub2`` for ``sub``. Refused for what writes or deletes.
- ``head`` ends with an error of its own after printing: that one line and exit code are taken back.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final
from urllib.parse import urlsplit

import msgspec

from protocol.errors import BadInput, BadName, Internal, UnknownPath
from protocol.grants import Permission
from protocol.names import shown
from wio.credentials import Opening


@dataclass(frozen=True)
class Shape:
    """How one mc command reads its arguments and what it prints."""

    local: bool = False
    """Its arguments may be local files."""
    target: bool = False
    """The last argument is written to."""
    together: bool = False
    """All arguments belong to one run; else there is one run per node."""
    changes: bool = False
    """With --recursive it changes or copies what lies below."""
    raw: bool = False
    """It prints content, which is never touched."""
    progress: bool = False
    """It draws a progress bar on a terminal."""
    repeats: bool = False
    """It only looks: run again, it does no harm."""


COMMANDS: Final[Mapping[str, Shape]] = {
    "ls": Shape(repeats=True),
    "tree": Shape(repeats=True),
    "find": Shape(repeats=True),
    "stat": Shape(repeats=True),
    "du": Shape(repeats=True),
    "cat": Shape(local=True, raw=True, repeats=True),
    "head": Shape(local=True, raw=True, repeats=True),
    "diff": Shape(local=True, together=True, repeats=True),
    "cp": Shape(local=True, target=True, together=True, changes=True, progress=True),
    "mv": Shape(local=True, target=True, together=True, changes=True, progress=True),
    "mirror": Shape(local=True, target=True, together=True, progress=True),
    "rm": Shape(changes=True),
    "pipe": Shape(raw=True),
    "watch": Shape(),
}

_WITH_VALUE: Final = frozenset(
    """attr C checksum concurrent config-dir custom-header d depth enc-c enc-kms enc-s3 events exclude
    exclude-bucket exclude-storageclass exec H ignore larger legal-hold limit-download limit-upload
    lines maxdepth metadata monitoring-address n name newer-than offset older-than part-number
    part-size path prefix print regex region resolve retention-duration retention-mode rewind sc smaller
    storage-class suffix tail tags version-id vid""".split()  # noqa: SIM905  - as a list it takes 50 lines
)
"""Options of these commands that take a value as their next word."""
_RECURSIVE: Final = frozenset({"r", "recursive"})
_LOCAL_STARTS: Final = ("/", "./", "../", "~/", ".\\", "..\\")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_NODE = re.compile(r"([a-z0-9._-]+):(.*)\Z", re.DOTALL)


@dataclass(frozen=True)
class Word:
    """One argument that is no option. ``path``: of a workspace, ``node`` being the one written before it, if any."""

    text: str
    path: bool
    node: str = ""
    folder: bool = False
    """It has to be a folder, whether or not it says so with a final slash."""


@dataclass(frozen=True)
class Line:
    """A command line of ``wio mc``, read."""

    command: str
    options: tuple[str, ...]
    words: tuple[Word, ...]

    @property
    def shape(self) -> Shape:
        """How its command works."""
        return COMMANDS[self.command]

    @property
    def paths(self) -> tuple[str, ...]:
        """The workspace paths in it, in order, each once."""
        return tuple(dict.fromkeys(word.text for word in self.words if word.path))

    @property
    def lasting(self) -> bool:
        """Whether it may copy for long, and needs a key for that. A longer key is out for longer, so only then."""
        return self.shape.target and (self.recursive or self.command == "mirror")

    @property
    def splits(self) -> bool:
        """Whether its sources may be taken one after the other."""
        return self.command in {"cp", "mv"}

    @property
    def recursive(self) -> bool:
        """Whether it goes into folders."""
        return any(option.lstrip("-") in _RECURSIVE for option in self.options)


@dataclass(frozen=True)
class Run:
    """One start of mc: its arguments, ``environment`` to add (secret), and what to write in its output instead of what.

    ``kept``: it uses a key that was kept, of which the storage server may think otherwise by now. ``paths``: how many words
    of it are paths or files. ``expires``: when the first of its keys ends, Unix seconds; 0 where it has none.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    names: tuple[tuple[bytes, bytes], ...]
    shape: Shape
    kept: bool = False
    paths: int = 1
    expires: int = 0

    def __repr__(self) -> str:
        return f"Run({' '.join(self.arguments)})"


# ------------------------------------------------------------------------------------------------------ reading


def read(arguments: Sequence[str]) -> Line:
    """Read what stands after ``wio mc``; raise BadInput for a command or form that cannot be translated."""
    options: list[str] = []
    rest: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if word == "--":
            rest += left
            break
        if word == "-" or not word.startswith("-"):
            rest.append(word)
            continue
        options.append(word)
        if word.lstrip("-") in _WITH_VALUE and left:
            options.append(left.pop(0))
    if not rest or rest[0] not in COMMANDS:
        what = f"wio mc does not know {shown(rest[0])}." if rest else "wio mc needs a command."
        raise BadInput(what, todo=f"These work: {', '.join(sorted(COMMANDS))}. For anything else: wio creds.")
    command, shape = rest[0], COMMANDS[rest[0]]
    line = Line(command, tuple(options), tuple(_word(text, local=shape.local) for text in rest[1:]))
    _check(line)
    return line


def wants_help(arguments: Sequence[str]) -> bool:
    """Say whether mc's own help is asked for."""
    return any(word in {"-h", "--help"} for word in arguments)


def _word(text: str, *, local: bool) -> Word:
    if local and (text in {"-", ".", ".."} or text.startswith(_LOCAL_STARTS) or _DRIVE.match(text)):
        return Word(text, path=False)
    if local and "/" not in text and ":" not in text:
        return Word(f"./{text}" if text.startswith("-") else text, path=False)
    match = _NODE.match(text)
    return Word(match[2], path=True, node=match[1]) if match and "/" not in match[1] else Word(text, path=True)


def _check(line: Line) -> None:
    if "--stdin" in line.options:
        raise BadInput("wio mc does not translate names that come on standard input.", todo="Give the paths as arguments.")
    if not line.words:
        raise BadInput(f"wio mc {line.command} needs a path.", todo="wio ls shows your workspaces.")
    if not line.paths:
        bare = next((word.text for word in line.words if "/" not in word.text and word.text.strip("-.")), "scans")
        raise BadInput(
            f"None of the arguments of wio mc {line.command} is a path of a workspace.",
            todo=f"Write a workspace with a slash: {bare}/",
        )
    for path in line.paths:
        if not path:
            raise BadName("A path begins with a workspace.", todo="wio ls shows your workspaces.")
        if any(part in {"", ".", ".."} for part in path.rstrip("/").split("/")):
            raise BadName(f"{shown(path)} holds an empty, . or .. part, which mc would read as another place.")


def _no_slash(command: str, path: str) -> BadInput:
    return BadInput(
        f"mc {command} --recursive of {shown(path)} would take everything whose name begins like that.",
        todo=f"For the folder alone write {path}/ with a slash; for one file leave --recursive out.",
    )


def _sources(line: Line) -> tuple[Word, ...]:
    return line.words[:-1] if line.shape.target and len(line.words) > 1 else line.words


# ------------------------------------------------------------------------------------------------------ planning


def plan(line: Line, opened: Mapping[str, Opening]) -> tuple[Run, ...]:
    """Return the runs of mc that do what ``line`` says, given where its paths lie.

    Raises BadInput for what mc would understand otherwise, UnknownPath for a path that is not on the node named before it.
    """
    for word in line.words:
        if word.node and opened[word.text].place.node != word.node:
            raise UnknownPath(f"{shown(word.text)} is on node {opened[word.text].place.node}, not on {shown(word.node)}.")
    if line.shape.changes and line.recursive:
        for word in _sources(line):
            if word.path and not word.text.endswith("/") and opened[word.text].place.inside:
                raise _no_slash(line.command, word.text)
    return tuple(_run(line, words, opened) for words in _groups(line, opened))


def _groups(line: Line, opened: Mapping[str, Opening]) -> list[list[Word]]:
    """Return the words of each run: sources that lie in one place, with the target behind them where there is one."""
    sources = _sources(line)
    targets = list(line.words[len(sources) :])
    if line.shape.together and not line.splits:
        return [list(line.words)]
    groups = [list(group) for _, group in groupby(sources, key=lambda word: _node(word, opened))]
    if len(groups) > 1:
        # With one source a name at the end is that of a file, and the next run would write over it.
        targets = [replace(target, folder=True) for target in targets]
    return [group + targets for group in groups]


def _node(word: Word, opened: Mapping[str, Opening]) -> str:
    return opened[word.text].place.node if word.path else ""


def _run(line: Line, words: Sequence[Word], opened: Mapping[str, Opening]) -> Run:
    openings = [opened[word.text] for word in words if word.path]
    aliases = _aliases(openings)
    environment = {f"MC_HOST_{aliases[opening.key.node]}": host(opening) for opening in openings}
    translated = [_written(word, opened, aliases) for word in words]
    names: dict[bytes, bytes] = {}
    for opening in openings:
        names |= _names(opening, aliases[opening.key.node], plain=line.command == "du")
    longest_first = tuple(sorted(names.items(), key=lambda pair: -len(pair[0])))
    return Run(
        arguments=(line.command, *line.options, *translated),
        environment=environment,
        names=longest_first,
        shape=line.shape,
        kept=any(opening.kept for opening in openings),
        paths=len(words),
        expires=min((opening.key.expires for opening in openings), default=0),
    )


def host(opening: Opening) -> str:
    """Return the value of MC_HOST_<alias>. mc takes the secret as it is (4-storage): ``/ + @`` work, ``:`` cannot."""
    key, parts = opening.key, urlsplit(opening.key.endpoint)
    if ":" in key.access_key + key.secret_key + key.session_token:
        raise Internal(
            "This key holds a colon, which mc cannot take.", todo="Run the command again with a new key: wio logout."
        )
    return f"{parts.scheme}://{key.access_key}:{key.secret_key}:{key.session_token}@{parts.netloc}"


def _aliases(openings: Iterable[Opening]) -> dict[str, str]:
    """Return a name for each node that mc takes for an alias, and a shell in between for the end of a variable's name."""
    aliases: dict[str, str] = {}
    for node in dict.fromkeys(opening.key.node for opening in openings):
        alias = "wio_" + re.sub(r"[^A-Za-z0-9]", "_", node)
        while alias in aliases.values():
            alias += "_"
        aliases[node] = alias
    return aliases


def _written(word: Word, opened: Mapping[str, Opening], aliases: Mapping[str, str]) -> str:
    text = _translated(opened[word.text], aliases) if word.path else word.text
    return f"{text}/" if word.folder and not text.endswith(("/", "\\")) else text


def _translated(opening: Opening, aliases: Mapping[str, str]) -> str:
    place = opening.place
    key = place.key or place.prefix
    # A whole workspace always ends in a slash: without it mc would take scans2 for scans.
    if place.key + "/" == place.prefix:
        key = place.prefix
    return f"{aliases[place.node]}/{place.bucket}/{key}"


def _names(opening: Opening, alias: str, *, plain: bool) -> dict[bytes, bytes]:
    place = opening.place
    inside, name = f"{place.bucket}/{place.prefix}", f"{place.workspace}/"
    found = {f"{alias}/{inside}": name, f"{opening.key.endpoint}/{inside}": name}
    if plain:  # du prints bucket/folder, without a final slash
        found |= {f"\t{inside}".rstrip("/"): f"\t{name}".rstrip("/"), f'"{inside}'.rstrip("/"): f'"{name}'.rstrip("/")}
    found |= {_as_json(text): shown_as for text, shown_as in found.items()}
    return {text.encode("utf-8", "surrogateescape"): shown_as.encode() for text, shown_as in found.items()}


def _as_json(text: str) -> str:
    """Return text as Go writes it inside a JSON string, apart from quotes."""
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


# ------------------------------------------------------------------------------------------------------ refusals

_REFUSALS: Final = (
    b"Access Denied",
    b"AccessDenied",
    b"Insufficient permissions to access this path",
    b"The Access Key Id you provided does not exist",
    b"The security token included in the request is invalid",
)
"""How mc says that the storage server refused the key, as tried with mc of 2025-03 and a key that had lost its right."""
_RIDDLE: Final = b"Unable to guess the type of copy operation"
"""What mc says of a source that it may not see, and of one that is not there."""


class Refusal(enum.Enum):
    """What a line of mc's errors means for the key."""

    NONE = enum.auto()
    PERHAPS = enum.auto()
    SURE = enum.auto()


def refusal(said: bytes) -> Refusal:
    """Say whether a line of mc's errors is about a key that the storage server refused."""
    if any(sign in said for sign in _REFUSALS):
        return Refusal.SURE
    return Refusal.PERHAPS if _RIDDLE in said else Refusal.NONE


def is_error(line: bytes) -> bool:
    """Say whether a line of mc's standard output is an error: with --json they come there."""
    return line.startswith(b'{"status":"error"')


def only_in_first(line: bytes) -> bytes:
    """Return the name in a line of ``mc diff --json`` that says that something is in the first place only; else nothing."""
    try:
        said = msgspec.json.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return b""
    first = said.get("first") if isinstance(said, dict) and not said.get("second") else None
    return first.encode() if isinstance(first, str) else b""


def repeatable(line: Line, run: Run, *, printed: bool) -> bool:
    """Say whether a refused run may be started again by itself: it only looks, and nothing of its answer is out yet.

    What ``raw`` commands print is not seen here: with one path they are refused before they print, with several perhaps not.
    """
    executes = any(option.lstrip("-").partition("=")[0] == "exec" for option in line.options)
    return run.shape.repeats and not executes and not printed and (run.paths == 1 or not run.shape.raw)


def lacking(line: Line, opened: Mapping[str, Opening]) -> Opening | None:
    """Return the first path for which the command needs more than this person may do there; None if there is none."""
    sources = _sources(line)
    for number, word in enumerate(line.words):
        if not word.path:
            continue
        permission = opened[word.text].place.permission
        if line.command == "rm" or (line.command == "mv" and number < len(sources)):
            enough = permission.writes or permission is Permission.TIDY
        elif line.command == "pipe" or number >= len(sources):
            enough = permission.writes or permission is Permission.DROP
        else:
            enough = permission.reads
        if not enough:
            return opened[word.text]
    return None


# ------------------------------------------------------------------------------------------------------ output


def renamed(line: bytes, names: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return one line of mc's output with workspace names instead of positions on the server."""
    for position, name in names:
        line = line.replace(position, name)
    return line


def harmless(line: bytes) -> bytes:
    """Return one line for a terminal: what a file's name smuggled in (mc prints it raw) is written out instead."""
    body = line.rstrip(b"\r\n")
    text = body.decode("utf-8", "replace")
    safe = "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)
    return safe.encode() + line[len(body) :]
