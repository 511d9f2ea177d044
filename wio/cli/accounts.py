"""``wio register``, ``login``, ``logout``, ``whoami``: who one is, and where."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final

import msgspec
import typer

from protocol.api import Person, SignedIn
from protocol.errors import BadInput, BadSetting, NotSignedIn, Unreachable
from wio.cli import here, output
from wio.cli.output import Json
from wio.cli.words import moment, safe
from wio.config import Account, Config

PASSWORD: Final = "WIO_PASSWORD"  # noqa: S105  - the name of a variable
_PANEL: Final = "You"
Hub = Annotated[str | None, typer.Option("--hub", help="Address of the hub.", metavar="URL", show_default=False)]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Send the password to a hub without TLS over a network.")]


class Who(msgspec.Struct, frozen=True):
    """What these commands answer. ``expires_at`` in Unix microseconds; None where only the token is known."""

    hub: str
    person: Person
    expires_at: int | None = None


class Out(msgspec.Struct, frozen=True):
    """What ``logout`` answers."""

    hub: str
    username: str


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (register, login, logout, whoami):
        app.command(rich_help_panel=_PANEL)(command)


def register(
    email: Annotated[str, typer.Argument(help="Your mail address.", show_default=False)],
    username: Annotated[str, typer.Argument(help="The name others will know you by.", show_default=False)],
    *,
    hub: Hub = None,
    password_stdin: FromStdin = False,
    insecure: Insecure = False,
    json: Json = False,
) -> None:
    """Make an account on a hub and sign in."""
    from wio.client import Client  # noqa: PLC0415  - brings httpx, which help does without

    config = Config.here()
    address = _protected(config.hub(hub), insecure=insecure)
    with Client(address) as client:
        signed_in = client.register(email, username, _password(from_stdin=password_stdin, new=True))
    _remember(config, address, signed_in, json=json)


def login(
    email: Annotated[str | None, typer.Argument(help="Your mail address.", show_default=False)] = None,
    *,
    hub: Hub = None,
    password_stdin: FromStdin = False,
    insecure: Insecure = False,
    json: Json = False,
) -> None:
    """Sign in to a hub."""
    from wio.client import Client  # noqa: PLC0415  - brings httpx, which help does without

    config = Config.here()
    address = _protected(config.hub(hub), insecure=insecure)
    known = config.account(address)
    email = email or (known.email if known else None) or _asked("Mail address")
    with Client(address) as client:
        signed_in = client.login(email, _password(from_stdin=password_stdin, new=False))
    _remember(config, address, signed_in, json=json)


def logout(json: Json = False) -> None:
    """End this sign-in on the hub and forget its keys here."""
    with here.session() as session:
        config, seat, keys = session.config, session.seat, session.keys
        account = config.account(seat.hub)
        if account is not None and account.token == seat.token:
            config.forget(seat.hub)
        keys.forget()
        try:
            session.client.logout()
        except NotSignedIn:
            pass  # it was over already
        except Unreachable as error:
            output.note("The keys are forgotten here, but the hub could not be told that the sign-in is over.")
            raise error from None
    if json:
        output.value(Out(seat.hub, seat.username))
    else:
        output.line(f"Signed out from {seat.hub}.")


def whoami(json: Json = False) -> None:
    """Show who you are, and on which hub."""
    with here.session() as session:
        person = session.client.me()
        account = session.config.account(session.seat.hub)
        expires = account.expires_at if account and account.token == session.seat.token else None
    _show(Who(session.seat.hub, person, expires), json=json)


def _remember(config: Config, hub: str, signed_in: SignedIn, *, json: bool) -> None:
    person = signed_in.person
    config.remember(hub, Account(signed_in.token, person.username, person.email, signed_in.expires_at))
    if os.environ.get("WIO_TOKEN"):
        output.note("WIO_TOKEN is set: commands go on using that token until you unset it.")
    _show(Who(hub, person, signed_in.expires_at), json=json)


def _show(who: Who, *, json: bool) -> None:
    if json:
        output.value(who)
        return
    until = f", signed in until {moment(who.expires_at)}" if who.expires_at else ""
    role = ", administrator" if who.person.admin else ""
    output.line(f"{safe(who.person.username)} ({safe(who.person.email)}) at {who.hub}{role}{until}")


def _protected(hub: str, *, insecure: bool) -> str:
    from wio.client import unprotected  # noqa: PLC0415  - brings httpx, which help does without

    if unprotected(hub) and not insecure:
        raise BadSetting(
            f"{hub} has no TLS: everybody on the way could read your password.",
            todo="Use its https:// address, or --insecure if you trust the network.",
        )
    return hub


def _password(*, from_stdin: bool, new: bool) -> str:
    """Return the password from where it may come from; never from an argument, which every process can see."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if PASSWORD in os.environ:
        return os.environ[PASSWORD]
    return _asked("Password", hidden=True, twice=new)


def _asked(what: str, *, hidden: bool = False, twice: bool = False) -> str:
    if not sys.stdin.isatty():
        how = f"--password-stdin or {PASSWORD}" if hidden else "an argument"
        raise BadInput(f"{what} is missing, and there is no terminal to ask on.", todo=f"Give it with {how}.")
    return str(typer.prompt(what, hide_input=hidden, confirmation_prompt=twice, err=True))
