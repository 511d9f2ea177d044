"""``wio tools setup``, the doing: writes what ``settings`` says, remembers for which tool, and takes it back.

A file that others write as well gets a section of its own (``marked``) and, before the first one, a copy beside it:
``….before-wio``. Undone, such a file has its earlier bytes, or is gone if it was not there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from protocol.errors import BadSetting, NameTaken
from protocol.names import shown
from wio import private
from wio.tools import marked
from wio.tools.settings import TOOLS, Files, Node, Text, Tool, profiles, together

_STATE: Final = "tools.json"
_COPY: Final = ".before-wio"


class State(msgspec.Struct, frozen=True):
    """``tools.json``: the nodes that each tool is set up for, and the command that gives them their keys."""

    command: tuple[str, ...] = ()
    tools: dict[str, tuple[Node, ...]] = {}

    def plus(self, tool: Tool, nodes: Sequence[Node]) -> State:
        """Return it with a tool set up for these nodes, in place of what it was set up for."""
        return State(self.command, self.tools | {tool.name: tuple(nodes)})

    def minus(self, tool: Tool) -> State:
        """Return it without a tool."""
        return State(self.command, {name: nodes for name, nodes in self.tools.items() if name != tool.name})


class Desk:
    """The settings of one person's tools. ``command`` of what is set up starts wio as this person: tools run it for keys."""

    def __init__(self, config: Path, files: Files) -> None:
        self._state_file = config / _STATE
        self.files = files

    def state(self) -> State:
        """Return what is set up; raises BadSetting for a file that cannot be read."""
        content = private.read(self._state_file)
        if content is None:
            return State()
        try:
            return msgspec.json.decode(content, type=State)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadSetting(
                f"{shown(str(self._state_file))} cannot be read: {error}.",
                todo="Remove it; then wio tools setup TOOL, and --undo if you wish.",
            ) from error

    def texts(self, tool: Tool, nodes: Sequence[Node], command: Sequence[str]) -> list[Text]:
        """Return what belongs into files when ``tool`` is set up for ``nodes``, beside what other tools need there."""
        return _texts(State(tuple(command), self.state().plus(tool, nodes).tools), self.files, only=tool)

    def set_up(self, tool: Tool, nodes: Sequence[Node], command: Sequence[str]) -> list[Path]:
        """Write what a tool needs, in place of what was there for it, and return the files.

        Raises NameTaken if somebody else wrote a part of that name there; then nothing is changed.
        """
        with private.locked(self._state_file):
            before = self.state()
            after = State(tuple(command), before.plus(tool, nodes).tools)
            self._change(before, after)
            return [text.path for text in _texts(after, self.files, only=tool)]

    def undo(self, tool: Tool) -> list[Path]:
        """Take back what was written for a tool, as far as no other one needs it, and return the files that changed."""
        with private.locked(self._state_file):
            before = self.state()
            return self._change(before, before.minus(tool))

    def _change(self, before: State, after: State) -> list[Path]:
        new = {text.path: text for text in _texts(after, self.files)}
        old = {text.path: text for text in _texts(before, self.files)}
        for text in new.values():
            _check(text)
        changed = [path for path in (*new, *(path for path in old if path not in new)) if _differs(path, new)]
        for path in changed:
            _write(path, new.get(path), shared=(new.get(path) or old[path]).shared)
        if after.tools:
            private.write(self._state_file, msgspec.json.format(msgspec.json.encode(after), indent=2) + b"\n")
        else:
            private.remove(self._state_file)
        return changed


def starter(hub: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command that starts ``wio creds`` as this person at this hub, wherever a tool runs it."""
    program = shutil.which("wio", path=str(Path(sys.executable).parent)) or shutil.which("wio", path=environment.get("PATH"))
    begin = (program,) if program else (sys.executable, "-c", "from wio.cli import main; main()")
    chosen = environment.get("WIO_CONFIG")
    there = ("env", f"WIO_CONFIG={Path(chosen).expanduser().absolute()}") if chosen else ()
    return (*there, *begin, "creds", "get", "--hub", hub)


def found(tool: Tool, environment: Mapping[str, str]) -> str:
    """Return where a tool is on this machine; empty if it is not."""
    program = shutil.which(tool.program, path=environment.get("PATH")) if tool.program else None
    if program:
        return program
    spec = find_spec(tool.module) if tool.module else None
    return str(Path(spec.origin).parent) if spec is not None and spec.origin else ""


def _texts(state: State, files: Files, *, only: Tool | None = None) -> list[Text]:
    """Return all that belongs into files, or what one tool reads of it, each file once."""
    command = state.command
    texts: list[Text] = []
    users = [nodes for name, nodes in state.tools.items() if TOOLS[name].profile] if only is None or only.profile else []
    if users:
        texts.append(profiles(together(users), files.aws, command))
    if "restic" in state.tools and only in {None, TOOLS["restic"]}:
        nodes = state.tools["restic"]
        body = profiles(nodes, files.own / "credentials", command).body.replace("[profile ", "[")
        texts.append(Text(files.own / "credentials", body))
    for name, nodes in state.tools.items():
        if only is None or name == only.name:
            texts += TOOLS[name].files(nodes, files)
    return texts


def _differs(path: Path, new: Mapping[Path, Text]) -> bool:
    """Say whether a file has to be written; what is right there already is left alone."""
    text = new.get(path)
    if text is None:
        return True
    there = _read(path)
    return there != (marked.put(there or "", text.body) if text.shared else text.body)


def _check(text: Text) -> None:
    """Raise NameTaken for a part of a file that somebody else wrote under a name of ours."""
    if not text.shared:
        return
    lines = {line.strip() for line in marked.rest(_read(text.path) or "").splitlines()}
    taken = [head for head in text.heads if head in lines]
    if taken:
        raise NameTaken(
            f"{shown(str(text.path))} has a part {taken[0]} that wio did not write.",
            todo="Rename or remove it, then try again; --print shows what wio would write.",
        )


def _write(path: Path, text: Text | None, *, shared: bool) -> None:
    path = path.resolve()  # a link stays one
    before = _read(path)
    after = marked.put(before or "", text.body if text else "") if shared else text.body if text else ""
    copy = path.with_name(path.name + _COPY)
    if not after:
        private.remove(path)
    else:
        mode = stat.S_IMODE(path.stat().st_mode) if before is not None else 0o600
        if shared and before is not None and not marked.has(before) and text is not None:
            private.write(copy, before.encode("utf-8", "surrogateescape"))
        private.write(path, after.encode("utf-8", "surrogateescape"))
        path.chmod(mode)
    if text is None:
        if shared and _read(copy) == after:
            private.remove(copy)
        if not shared:
            with contextlib.suppress(OSError):  # others are in it
                os.rmdir(path.parent)  # noqa: PTH106  - only if it is empty


def _read(path: Path) -> str | None:
    content = private.read(path)
    return None if content is None else content.decode("utf-8", "surrogateescape")
