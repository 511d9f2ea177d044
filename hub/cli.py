"""``wio-hub``: run a hub and look after it.

The answer goes to standard output, everything else to standard error. With ``--json`` the answer is JSON whose fields stay.
An error is one sentence, what to do next below it, and the exit code of its class (``protocol.errors``).
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
import typer

from hub import upkeep
from hub.serve import begin_log
from hub.serve import serve as serve_until_told
from hub.settings import Registration, Settings, misspelt, read_settings, tell_settings
from protocol.api import NewAccount
from protocol.errors import BadInput, Pending, WioError

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Run a wio hub and look after it.", pretty_exceptions_enable=False
)
user = typer.Typer(no_args_is_help=True, help="Accounts.")
app.add_typer(user, name="user")

Data = Annotated[str | None, typer.Option("--data", help="The data directory; WIO_DATA.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; WIO_HOST.", show_default=False)] = None,
    port: Annotated[str | None, typer.Option(help="Port; 0 takes any free one; WIO_PORT.", show_default=False)] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Run the hub until it is told to stop."""
    settings = _settings(data=data, host=host, port=port)

    def ready(listening: Settings, nobody: bool) -> None:
        url = listening.address(listening.port)
        where = f"[{listening.host}]" if ":" in listening.host else listening.host
        told = _Listening(f"http://{where}:{listening.port}", url, str(listening.data))
        _answer(told, f"wio-hub listens on {told.listening}; people and agents use {url}. Data: {told.data}", as_json=as_json)
        if nobody:
            _note(_begin(listening))

    _run(serve_until_told(settings, ready=ready))


@app.command()
def init(data: Data = None, as_json: Json = False) -> None:
    """Make the data directory, the secret, the tables and the hub's key, where they are not there yet."""
    settings = _settings(data=data)
    made = _run(upkeep.init(settings))
    _answer(made, f"The hub in {made.data} is ready. Its key: {made.fingerprint}.", as_json=as_json)


@app.command()
def migrate(data: Data = None, as_json: Json = False) -> None:
    """Bring the database to the layout of this version. Serving does it too."""
    moved = _run(upkeep.migrate(_settings(data=data)))
    before = moved.before or "nothing"
    text = f"The database is at {moved.after} already." if moved.before == moved.after else f"From {before} to {moved.after}."
    _answer(moved, text, as_json=as_json)


@app.command()
def settings(data: Data = None, as_json: Json = False) -> None:
    """Show every setting, the value in use and where it comes from."""
    rows = tell_settings(os.environ, _settings(data=data))
    width = max(len(row.name) for row in rows)
    text = "\n".join(f"{row.name:{width}}  {row.value}  [{row.source}]" for row in rows)
    _answer(rows, text, as_json=as_json)


@user.command("create")
def user_create(  # noqa: PLR0917  - typer reads arguments and options from the signature
    email: str,
    username: str,
    admin: Annotated[bool, typer.Option("--admin", help="Let them see and administer everything on this hub.")] = False,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make an account, also where registration is closed. Asks for the password."""
    settings = _settings(data=data)
    password = _password(from_stdin=password_stdin)
    person = _run(upkeep.create_user(settings, NewAccount(email, username, password), admin=admin))
    text = (
        f"{person.username} has an account{' and is an administrator' if admin else ''}. They sign in with: wio login {email}"
    )
    _answer(person, text, as_json=as_json)


@user.command("disable")
def user_disable(username: str, data: Data = None, as_json: Json = False) -> None:
    """End an account: its tokens are dead and its keys open nothing of its own. Exit code 6 where a node has yet to hear."""
    ended = _run(upkeep.disable_user(_settings(data=data), username))
    lines = [f"{username} is disabled: no token of theirs is good, and they cannot sign in."]
    for one in ended.nodes:
        if one.state == "pending":
            lines.append(f"pending on {one.node}: keys that are out go on working for {one.exposure_s} s at most")
        else:
            lines.append(f"enforced on {one.node}: keys that are out open nothing of theirs any more")
    _answer(ended, "\n".join(lines), as_json=as_json)
    if any(one.state == "pending" for one in ended.nodes):
        raise typer.Exit(Pending.exit_code)


@user.command("enable")
def user_enable(username: str, data: Data = None, as_json: Json = False) -> None:
    """Open an account again, with everything it was given; its person signs in anew."""
    opened = _run(upkeep.enable_user(_settings(data=data), username))
    _answer(opened, f"{username} can sign in again, and has what was shared with them.", as_json=as_json)


@app.command("backup")
def backup_(file: Path, data: Data = None, as_json: Json = False) -> None:
    """Write the hub into one file, while it runs: its SQLite database, and the secret where that lies beside it."""
    made = _run(upkeep.write_backup(_settings(data=data), file))
    _answer(made, f"{made.file} holds {' and '.join(made.parts)}, {made.bytes:,} bytes.", as_json=as_json)
    if "secret" in made.parts:
        _note("Whoever has this file can pass for this hub. Keep it where only you can read it.")
    else:
        _note("The secret is not in it: keep WIO_SECRET apart from it. One without the other is no hub.")


@app.command()
def restore(file: Path, data: Data = None, as_json: Json = False) -> None:
    """Make a hub of a backup, in an empty data directory. Its nodes only narrow until their owners confirm."""
    told = _run(upkeep.restore(_settings(data=data), file))
    _answer(told, _waiting(told), as_json=as_json)


@app.command()
def restored(data: Data = None, as_json: Json = False) -> None:
    """Say that the database was put back from a backup, before the hub is started: its nodes only narrow until confirmed."""
    told = _run(upkeep.restored(_settings(data=data)))
    _answer(told, _waiting(told), as_json=as_json)


@app.command()
def verify(data: Data = None, as_json: Json = False) -> None:
    """Check that the database is sound and that no line of the audit trail was changed or is missing."""
    findings = _run(upkeep.verify(_settings(data=data)))
    text = "\n".join(f"{'ok ' if finding.ok else 'BAD'} {finding.what}: {finding.says}" for finding in findings)
    _answer(findings, text, as_json=as_json)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _waiting(told: upkeep.Restored) -> str:
    if not told.nodes:
        return "The hub is as it was at the backup. It has no nodes, so there is nothing to confirm."
    confirm = "\n".join(f"  wio node confirm {name}" for name in told.nodes)
    return (
        "The hub is as it was at the backup. What was shared or taken back since then it does not know, so nothing that it\n"
        "knew before opens anew on its nodes until somebody has looked at what is shared. Start it: wio-hub serve. Then\n"
        f"each node's owner, or an admin, looks (wio shares) and says that it is right:\n{confirm}"
    )


@app.command()
def reindex(data: Data = None, as_json: Json = False) -> None:
    """Empty the search index and make it again from the database. The hub must not run meanwhile."""
    done = _run(upkeep.reindex(_settings(data=data)))
    _answer(done, f"{done.documents:,} files are searchable.", as_json=as_json)


@app.command()
def doctor(
    running: Annotated[bool, typer.Option("--running", help="Ask the running hub, and nothing else.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Look at everything the hub stands on and say what is wrong."""
    settings = _settings(data=data)
    findings = _run(upkeep.ask_running(settings) if running else upkeep.examine(settings))
    text = "\n".join(f"{'ok ' if finding.ok else 'BAD'} {finding.what}: {finding.says}" for finding in findings)
    _answer(findings, text, as_json=as_json)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def main() -> NoReturn:
    """Run the command line; every error of ``protocol.errors`` ends as a sentence and an exit code."""
    try:
        app()
    except WioError as error:
        _note(f"wio-hub: {error}", *([error.todo] if error.todo else []))
        sys.exit(error.exit_code)
    sys.exit(0)


class _Listening(msgspec.Struct, frozen=True):
    listening: str
    public_name: str
    data: str


def _settings(**options: str | None) -> Settings:
    settings = read_settings(os.environ, **options)
    begin_log(settings.log_form)
    for sentence in misspelt(os.environ):
        _note(sentence)
    return settings


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it is there: about a third less per request."""
    try:
        import uvloop  # noqa: PLC0415  - not on every platform
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def _begin(settings: Settings) -> str:
    create = "wio-hub user create EMAIL USERNAME --admin"
    if settings.registration is Registration.CLOSED:
        return f"Nobody has an account yet, and registration is closed. Make the first one here: {create}"
    return (
        f"Nobody has an account yet. Whoever administers this hub: {create}. "
        f"Everybody else: wio register EMAIL USERNAME --hub {settings.address(settings.port)}"
    )


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise BadInput("There is no terminal to ask for the password.", todo="Give it with --password-stdin.")
    password = getpass.getpass("Password (10 characters at least): ")
    if getpass.getpass("The same again: ") != password:
        raise BadInput("The two passwords are not the same.", todo="Try again.")
    return password


def _answer(value: Any, text: str, *, as_json: bool) -> None:
    typer.echo(msgspec.json.encode(value).decode() if as_json else text)


def _note(*lines: str) -> None:
    for line in lines:
        typer.echo(line, err=True)


if __name__ == "__main__":
    main()
