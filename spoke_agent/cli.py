"""``wio-agent``: join, run, and what the owner of a node may ask of it. Answers on stdout, everything else on stderr.

Exit codes: 0 done, 1 refused or failed, 2 wrong use, 3 not found, 4 not allowed, 5 hub or node unreachable, 6 pending.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
import typer

from protocol import plan as plans
from protocol.errors import AlreadyJoined, BadInput, BadSetting, Pending, Unreachable, WioError, error_of
from spoke_agent import screen
from spoke_agent.access import ceiling as ceilings
from spoke_agent.access.access import LOOK_S
from spoke_agent.access.minting import KeyOut
from spoke_agent.access.overview import Budget, Reach
from spoke_agent.access.overview import Cut as GrantCut
from spoke_agent.access.state import StateDirectory
from spoke_agent.control import NoneRuns, ask_running
from spoke_agent.owner import Ask, Counted, Cut, Probed, RootStatus, Status, Verified, What
from spoke_agent.settings import STATE_VARIABLE, Settings, read
from spoke_agent.storage.posix.exports import Export, Exports

if TYPE_CHECKING:
    from spoke_agent.agent import Agent
    from spoke_agent.storage.sigv4 import Key

# What needs a connection to storage or hub is imported where it is used: the rest answers in half the time.

T = TypeVar("T")

MAX_JOIN: Final = 4096
"""Characters of a join string read from a file."""
POLL_S: Final = 0.2
_GARBAGE: Final = 20_000
"""New objects after which Python looks for garbage: at the usual 700 a page of a listing makes it look, and keys wait."""
NO_AGENT: Final = 0
"""The process id where no agent runs."""

State = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", envvar=STATE_VARIABLE, help="The agent's state directory.")
]
Json = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]
AdminEnv = Annotated[
    bool, typer.Option("--admin-env", help="Take the server's admin key from MINIO_ROOT_USER/_PASSWORD or MC_HOST_*.")
]
AdminKey = Annotated[str, typer.Option("--admin-key", metavar="AK", help="The server's admin key; its secret is asked for.")]

app = typer.Typer(name="wio-agent", no_args_is_help=True, add_completion=False, help="The agent beside a storage server.")
ceiling_app = typer.Typer(no_args_is_help=True, help="Your limits: what nobody can exceed.")
app.add_typer(ceiling_app, name="ceiling")
roots_app = typer.Typer(no_args_is_help=True, help="Folders that are there already, as roots and workspaces.")
app.add_typer(roots_app, name="roots")


def main() -> None:
    """Run a command; every error becomes a sentence and an exit code."""
    os.umask(0o077)
    try:
        app()
    except WioError as error:
        screen.failure(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


# ------------------------------------------------------------------------------------------------ joining


@app.command()
def join(
    string: Annotated[str, typer.Argument(metavar="STRING|-|@FILE", help="The join string, or - for standard input.")],
    s3: Annotated[str, typer.Option("--s3", metavar="URL", help="The storage server, as this machine reaches it.")] = "",
    *,
    directory: Annotated[
        list[str] | None, typer.Option("--directory", metavar="PATH", help="Serve this directory as it lies. May be repeated.")
    ] = None,
    bucket: Annotated[
        list[str] | None, typer.Option("--bucket", metavar="NAME", help="What a --directory is called; else as its last part.")
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where directories are served; else on a port of this machine only.")
    ] = "",
    owner_of_files: Annotated[
        str, typer.Option("--owner", metavar="UID:GID", help="Whom files belong to that people upload. Needs root.")
    ] = "",
    file_mode: Annotated[str, typer.Option(metavar="0644", help="The mode of files that people upload.")] = "",
    dir_mode: Annotated[str, typer.Option(metavar="0755", help="The mode of folders that people make.")] = "",
    tls_cert: Annotated[str, typer.Option(metavar="FILE", help="Serve directories with this TLS certificate.")] = "",
    tls_key: Annotated[str, typer.Option(metavar="FILE", help="The key of that certificate.")] = "",
    accept_oddities: Annotated[
        bool, typer.Option("--accept-oddities", help="Serve a directory, and to nobody what is dangerous in it.")
    ] = False,
    admin_env: AdminEnv = False,
    admin_key: AdminKey = "",
    name: Annotated[str, typer.Option(help="What the node is called; else as the invitation says.")] = "",
    public_endpoint: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="Where people reach the storage server, if elsewhere.")
    ] = None,
    region: Annotated[str, typer.Option(help="The server's region.")] = "us-east-1",
    state: State = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow a hub without TLS that is not on this machine.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of an agent on the server that is gone for good.")
    ] = False,
    label: Annotated[
        str, typer.Option("--label", help="With --replace: which agent; else that of --name. The hub's invitation says it.")
    ] = "",
    run_on: Annotated[bool, typer.Option("--run", help="Go on running afterwards.")] = False,
    as_json: Json = False,
) -> None:
    """Add this machine's storage server, or directories of it, to a hub. Running it again is harmless."""
    from spoke_agent.agent import clock  # noqa: PLC0415 - see above
    from spoke_agent.joining import Joining, Wanted  # noqa: PLC0415 - see above

    if bool(s3) == bool(directory):
        raise BadSetting("A node is a storage server or directories.", todo="Give --s3 URL, or --directory PATH.")
    settings = read(os.environ, state)
    text, endpoints = _join_string(string), tuple(public_endpoint or ())
    there = StateDirectory(settings.state)
    there.prepare()
    if directory:
        from spoke_agent.joining_directory import DirectoryJoining, WantedDirectory, mode, owner, place  # noqa: PLC0415

        asked = WantedDirectory(
            text,
            tuple(directory),
            tuple(bucket or ()),
            name=name,
            public_endpoints=endpoints,
            listen=place(listen),
            owner=owner(owner_of_files),
            file_mode=mode(file_mode),
            dir_mode=mode(dir_mode),
            certificate=tls_cert,
            certificate_key=tls_key,
            insecure=insecure,
            region=region,
            accept_oddities=accept_oddities,
        )
        with _locked(there, "join"):
            joining = DirectoryJoining(settings, there, clock=clock, chance=secrets.token_bytes)
            done = asyncio.run(joining.join_directory(asked))
    else:
        admin = _owner(s3, admin_env=admin_env, admin_key=admin_key)
        wanted = Wanted(text, s3, admin, name, endpoints, insecure, region, replace, label)
        with _locked(there, "join"):
            done = asyncio.run(Joining(settings, there, clock=clock, chance=secrets.token_bytes).join(wanted))
    if as_json:
        screen.answer(done)
    else:
        screen.joined(done)
        if not run_on:
            screen.say("", "Start it: wio-agent run")
    if run_on:
        _run(settings)


@app.command()
def leave(
    *,
    admin_env: AdminEnv = False,
    admin_key: AdminKey = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Remove everything wio made on the storage server and here. Your data stays."""
    from spoke_agent.agent import clock  # noqa: PLC0415 - see above
    from spoke_agent.joining import Joining  # noqa: PLC0415 - see above
    from spoke_agent.joining_directory import DirectoryJoining  # noqa: PLC0415 - see above

    settings = read(os.environ, state)
    directory = StateDirectory(settings.state)
    there = directory.settings()
    served = there.storage.directory
    owner = _owner(there.storage.url, admin_env=admin_env, admin_key=admin_key) if served is None else None
    what = there.storage.url if served is None else ", ".join(export.directory for export in served.exports)
    if not yes and not typer.confirm(f"Remove wio from {what} ({there.name})? All keys die at once.", err=True):
        raise typer.Exit(1)
    with _locked(directory, "leave"):
        if owner is not None:
            done = asyncio.run(Joining(settings, directory, clock=clock, chance=secrets.token_bytes).leave(owner))
        else:
            leaving = DirectoryJoining(settings, directory, clock=clock, chance=secrets.token_bytes)
            done = asyncio.run(leaving.leave_directory())
    if as_json:
        screen.answer(done)
    else:
        screen.left(done)


def _join_string(text: str) -> str:
    """Return the join string itself: arguments show in process lists, so it may come from a file or standard input."""
    if text == "-":
        return sys.stdin.read(MAX_JOIN)
    if not text.startswith("@"):
        return text
    try:
        with Path(text[1:]).open(encoding="utf-8") as file:
            return file.read(MAX_JOIN)
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"The file {text[1:]} with the join string cannot be read.") from error


def _owner(url: str, *, admin_env: bool, admin_key: str) -> Key:
    from spoke_agent.joining import owner_key  # noqa: PLC0415 - see above
    from spoke_agent.storage.sigv4 import Key  # noqa: PLC0415 - see above

    if admin_env:
        return owner_key(os.environ, url)
    if not sys.stdin.isatty() and not admin_key:
        raise BadSetting(
            "An admin key of the storage server is needed, once.",
            todo="Give --admin-env, or --admin-key AK to be asked for its secret.",
        )
    access_key = admin_key or typer.prompt("Admin access key of the storage server", err=True)
    return Key(access_key, typer.prompt(f"Secret of {access_key}", hide_input=True, err=True))


@contextlib.contextmanager
def _locked(directory: StateDirectory, what: str) -> Iterator[None]:
    try:
        directory.lock()
    except AlreadyJoined as error:
        raise AlreadyJoined(error.message, todo=f"Stop that agent, then {what} again.") from error
    try:
        yield
    finally:
        directory.unlock()


# ------------------------------------------------------------------------------------------------ running


@app.command()
def run(*, state: State = None) -> None:
    """Run the agent until it is told to stop (SIGTERM, Ctrl-C). One line per event on stderr."""
    _run(read(os.environ, state))


def _run(settings: Settings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("websockets").setLevel(logging.WARNING)
    try:
        import uvloop  # noqa: PLC0415 - not on every platform, and an agent works without it: a key then takes longer
    except ImportError:
        asyncio.run(_running(settings))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_running(settings))


async def _running(settings: Settings) -> None:
    from spoke_agent.agent import Agent  # noqa: PLC0415 - see above

    stop, log = asyncio.Event(), logging.getLogger("spoke_agent")
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    agent = Agent(settings, StateDirectory(settings.state))
    await agent.open()
    gc.freeze()  # what is there now stays: looking through it again and again finds nothing
    gc.set_threshold(_GARBAGE)
    log.info("running on %s", settings.state)
    try:
        await agent.run(stop)
    finally:
        await agent.close()
        log.info("stopped")


class _Lines(logging.Formatter):
    """One JSON object a line. Of an exception its kind and where it was raised: its message may hold what was worked on."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"at": at, "level": record.levelname.lower(), "part": record.name, "message": record.getMessage()}
        if record.exc_info is not None and record.exc_info[1] is not None:
            trace = record.exc_info[1].__traceback__
            frames = []
            while trace is not None:
                frames.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
                trace = trace.tb_next
            line["raised"] = f"{type(record.exc_info[1]).__name__} at {' < '.join(reversed(frames[-6:]))}"
        return msgspec.json.encode(line).decode()


# ------------------------------------------------------------------------------------------------ asking


def _ask(settings: Settings, ask: Ask, kind: type[T], direct: Callable[[Agent], Coroutine[Any, Any, T]] | None = None) -> T:
    """Ask the running agent; where none runs, open its parts and do it here."""

    async def asked() -> T:
        StateDirectory(settings.state).settings()
        try:
            return msgspec.json.decode(await ask_running(settings.state, ask), type=kind)
        except NoneRuns:
            from spoke_agent.agent import opened  # noqa: PLC0415 - see above

            async with opened(settings) as agent:
                found = await (direct(agent) if direct is not None else agent.owner.answer(ask))
                return msgspec.convert(found, kind)

    return asyncio.run(asked())


@app.command()
def status(
    *,
    metrics: Annotated[bool, typer.Option("--metrics", help="As figures for a Prometheus textfile collector.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Show the agent at a glance."""

    async def direct(agent: Agent) -> Status:
        return msgspec.structs.replace(await agent.owner.status(), pid=NO_AGENT)

    found = _ask(read(os.environ, state), Ask(What.STATUS), Status, direct)
    if metrics:
        from spoke_agent.metrics import text  # noqa: PLC0415 - see above

        sys.stdout.write(text(found, time.time_ns() // 1000))
        return
    screen.answer(found) if as_json else screen.status(found)


@app.command()
def probe(*, state: State = None, as_json: Json = False) -> None:
    """Try again what the storage server can do."""
    found = _ask(read(os.environ, state), Ask(What.PROBE), Probed)
    if as_json:
        screen.answer(found)
        return
    screen.probes(found.server, found.probes)
    for sentence in found.unreadable:
        screen.say(sentence)


@app.command()
def grants(
    *,
    budget: Annotated[bool, typer.Option("--budget", help="Show only what everybody's access costs the server.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Show who can reach what on this node, and what that costs the storage server at each request."""
    settings = read(os.environ, state)
    budgets = _ask(settings, Ask(What.BUDGETS), list[Budget]) if budget or not as_json else []
    if budget:
        screen.answer(budgets) if as_json else screen.budgets(budgets)
        return
    found = _ask(settings, Ask(What.GRANTS), list[Reach])
    if as_json:
        screen.answer(found)
    else:
        screen.reaches(found)
        screen.budgets(budgets)


@app.command()
def keys(*, state: State = None, as_json: Json = False) -> None:
    """Show the keys that are out. Their secrets are written nowhere."""
    found = _ask(read(os.environ, state), Ask(What.KEYS), list[KeyOut])
    screen.answer(found) if as_json else screen.keys(found)


@app.command()
def pause(*, state: State = None, as_json: Json = False) -> None:
    """Cut everybody off at once, until resume; needs no hub and survives a restart."""
    _cut(What.PAUSE, state, as_json=as_json)


@app.command()
def resume(*, state: State = None, as_json: Json = False) -> None:
    """Let everybody in again, as their newest grants say."""
    _cut(What.RESUME, state, as_json=as_json)


def _cut(what: What, state: Path | None, *, as_json: bool) -> None:
    found = _ask(read(os.environ, state), Ask(what), Cut)
    screen.answer(found) if as_json else screen.cut(found)
    if found.problems:
        raise Pending(f"Not enforced everywhere yet: {found.problems[0].message}", todo="The agent goes on trying.")


@roots_app.command("suggest")
def roots_suggest(
    *,
    directory: Annotated[
        list[str] | None, typer.Option("--directory", metavar="PATH", help="Look through this one; else those that are served.")
    ] = None,
    state: State = None,
) -> None:
    """Propose roots and workspaces for folders that are there: a file on stdout, to edit and then apply. Only looks."""
    from spoke_agent import suggesting  # noqa: PLC0415 - see above
    from spoke_agent.joining_directory import bucket_for  # noqa: PLC0415 - see above

    given = [str(Path(one).expanduser().absolute()) for one in directory or ()]
    node, served = "", tuple(Export(bucket_for(one), one) for one in given)
    if not served:
        node, served = _served(read(os.environ, state))
    for line in suggesting.write([suggesting.suggest(export) for export in served], node):
        screen.say(line)


@roots_app.command("apply")
def roots_apply(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What suggest wrote, edited.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing: say what would be made.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Compare a plan with the folders that are there; then wio makes it, as the person who is logged in on this machine."""
    from spoke_agent import suggesting  # noqa: PLC0415 - see above

    text = _plan_text(file)
    _, served = _served(read(os.environ, state))
    wrong = suggesting.check_against(plans.read(text), Exports(served))
    for one in wrong:
        screen.note(f"wio-agent: {one}")
    if wrong:
        raise BadInput("The plan does not fit the tree; nothing was made.", todo="Edit it, and try again with --dry-run.")
    program = Path(sys.executable).with_name("wio")
    command = [str(program) if program.exists() else "wio", "root", "apply", "-"]
    command += [*(["--dry-run"] if dry_run else []), *(["--json"] if as_json else [])]
    try:
        done = subprocess.run(command, input=text, text=True, check=False)  # noqa: S603 - wio itself, with words of ours
    except OSError as error:
        todo = f"Run it where you are logged in: wio root apply {file}"
        raise BadSetting("The wio program is not there.", todo=todo) from error
    raise typer.Exit(done.returncode)


def _served(settings: Settings) -> tuple[str, tuple[Export, ...]]:
    there = StateDirectory(settings.state).settings()
    if there.storage.directory is None:
        raise BadInput("This node serves no directories.", todo="Say which one to look through: --directory PATH.")
    return there.name, there.storage.directory.exports


def _plan_text(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read(plans.MAX_PLAN + 1)
        with Path(file).open(encoding="utf-8") as opened:
            return opened.read(plans.MAX_PLAN + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"The plan {file} cannot be read.") from error


@ceiling_app.command("check")
def ceiling_check(*, state: State = None, as_json: Json = False) -> None:
    """Check your limits file, explain it line by line, and say which grants it cuts."""
    settings = read(os.environ, state)
    directory = StateDirectory(settings.state)
    lines = ceilings.explain(directory.ceiling_text())
    cuts = _ask(settings, Ask(What.CUTS), list[GrantCut]) if directory.joined else None
    path = str(directory.path / "ceiling.toml")
    if as_json:
        screen.answer({"path": path, "lines": lines, "cuts": cuts})
    else:
        screen.ceiling(lines, path, cuts)


@ceiling_app.command("edit")
def ceiling_edit(*, state: State = None) -> None:
    """Edit your limits in $VISUAL or $EDITOR. What you save counts once it has been checked, and never half of it."""
    settings = read(os.environ, state)
    directory = StateDirectory(settings.state)
    directory.settings()
    before = text = directory.ceiling_text()
    while True:
        text = _edited(text)
        if text == before:
            screen.say("Nothing was changed.")
            return
        try:
            lines = ceilings.explain(text)
        except BadSetting as error:
            screen.note(f"wio-agent: {error.message}")
            if sys.stdin.isatty() and typer.confirm("Edit it again? (No: the limits of before stay.)", default=True, err=True):
                continue
            raise
        break
    directory.write("ceiling.toml", text.encode())
    screen.ceiling(lines, str(directory.path / "ceiling.toml"), _ask(settings, Ask(What.CUTS), list[GrantCut]))
    screen.say("", f"A running agent obeys it within {LOOK_S} seconds.")


def _edited(text: str) -> str:
    """Return the text as the owner's editor leaves it. Raises BadSetting where there is no editor, or it fails."""
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="wio-ceiling-") as folder:
        path = Path(folder) / "ceiling.toml"
        path.write_text(text, encoding="utf-8")
        try:
            subprocess.run([*command, str(path)], check=True)  # noqa: S603 - the owner's own editor
            return path.read_text(encoding="utf-8")
        except (OSError, subprocess.CalledProcessError, UnicodeDecodeError) as error:
            raise BadSetting(
                f"The editor {command[0]} did not do its work; the limits are as they were.", todo="Set $EDITOR."
            ) from error


# ------------------------------------------------------------------------------------------------ roots


@app.command("import")
def import_root(
    root: Annotated[str, typer.Argument(help="A root of this node.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count, and say how long it would take.")] = False,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Take what lies in a root into the index, and wait until it is done. Goes on where it was cut off."""
    settings = read(os.environ, state)
    if dry_run:
        counted = _ask(settings, Ask(What.COUNT, root), Counted)
        screen.answer(counted) if as_json else screen.counted(counted)
        return
    done = _scan_through(settings, root)
    screen.answer(done) if as_json else screen.roots([done])


@app.command()
def scan(
    root: Annotated[str, typer.Argument(help="A root of this node.")], *, state: State = None, as_json: Json = False
) -> None:
    """Begin to compare a root with its storage."""
    settings = read(os.environ, state)
    found = _ask(settings, Ask(What.SCAN, root), RootStatus, lambda agent: _scan_here(agent, root))
    screen.answer(found) if as_json else screen.roots([found])


@app.command()
def verify(
    root: Annotated[str, typer.Argument(help="A root of this node; all where none is named.")] = "",
    *,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Count a root's storage from nothing and compare it with what is known of it."""
    found = _ask(read(os.environ, state), Ask(What.VERIFY, root), list[Verified])
    screen.answer(found) if as_json else screen.verified(found)
    if not all(one.same for one in found):
        raise typer.Exit(1)


def _scan_through(settings: Settings, name: str) -> RootStatus:
    began = _ask(settings, Ask(What.SCAN, name), RootStatus, lambda agent: _scan_here(agent, name))
    if began.scanning:
        began = asyncio.run(_watched(settings, began))
    if began.problem is not None:
        raise error_of(began.problem)
    return began


async def _watched(settings: Settings, began: RootStatus) -> RootStatus:
    """Show how a scan goes until it is over."""
    from rich.console import Console  # noqa: PLC0415 - see above
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - see above

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        bar = shown.add_task(began.name, total=began.objects or None)
        while True:
            try:
                answer = await ask_running(settings.state, Ask(What.ROOTS))
            except NoneRuns:
                raise Unreachable("The agent was stopped. The import goes on when it runs again: wio-agent run.") from None
            found = msgspec.json.decode(answer, type=list[RootStatus])
            now = next((root for root in found if root.name == began.name), None)
            if now is None:
                raise BadInput(f"Root {began.name} was taken off this node.")
            shown.update(bar, completed=now.scan_objects)
            if not now.scanning or now.problem is not None:
                return now
            await asyncio.sleep(POLL_S)


async def _scan_here(agent: Agent, name: str) -> RootStatus:
    began = await agent.owner.scan(name)
    config = next(config for config in agent.ledger.configs() if config.name == name)
    await agent.scanner.scan_root(config.root)
    await agent.ledger.fulfil(config.root)
    found = next(root for root in await agent.owner.roots() if root.name == began.name)
    return msgspec.structs.replace(found, scanning=False)
