"""Accounts, passwords and tokens.

Passwords are kept as argon2id, tokens as SHA-256 (they hold 256 random bits, so nothing slower is needed). A good token is
remembered for a few seconds, because a key request has to cost little more than the storage server's part of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy.exc import IntegrityError

from hub.db import people
from hub.db.database import Database
from hub.db.people import TokenRow, UserRow
from hub.services.audit import HUB, Audit
from hub.services.limits import Limiter
from hub.services.ports import Actor, Chance, Clock
from hub.services.settling import Settling
from protocol.api import Login, NewAccount, Person, SignedIn
from protocol.errors import BadInput, NameTaken, NotAllowed, NotSignedIn, UnknownUser, WrongPassword
from protocol.grants import Subject, SubjectKind
from protocol.identity import to_text
from protocol.names import UserId, check_name, shown

TOKEN_LIFE_S: Final = 30 * 86_400
_MICROSECOND: Final = 1_000_000
_KNOWN_FOR_S: Final = 3
"""How long a token is believed without asking the database: how long one may live on that another worker ended."""
_KNOWN_AT_MOST: Final = 10_000
_PREFIX: Final = "wio_"
_SHORTEST, _LONGEST = 10, 1000
_EMAIL: Final = re.compile(r"[^@\s]{1,64}@[^@\s]{1,189}\Z")
_HASHED_AT_ONCE: Final = 2
"""One hash takes 64 MiB and a core for some 50 ms."""


class _Known(msgspec.Struct, frozen=True):
    actor: Actor
    until: int


class Accounts:
    """Everybody who may sign in."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        chance: Chance,
        audit: Audit,
        settling: Settling,
        registration_open: bool = True,
        hasher: PasswordHasher | None = None,
        wither: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """``wither`` ends the links of people whose accounts are ended (``Links.wither``)."""
        self._wither = wither
        self._database = database
        self._clock = clock
        self._chance = chance
        self._audit = audit
        self._settling = settling
        self._open = registration_open
        self._hasher = hasher or PasswordHasher()
        self._hashing = asyncio.Semaphore(_HASHED_AT_ONCE)
        self._nobody = self._hasher.hash("nobody has this password", salt=chance.secret(16))
        self._logins = Limiter(clock=clock, tries=10, window_s=600, what="sign-ins")
        self._addresses = Limiter(clock=clock, tries=300, window_s=600, what="sign-ins")
        self._registrations = Limiter(clock=clock, tries=20, window_s=3600, what="registrations")
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    # -------------------------------------------------------------------------------------------------- signing in

    async def register(self, new: NewAccount, address: str) -> SignedIn:
        """Make an account and sign in.

        Raises NotAllowed (registration is closed), TooMany, BadName, BadInput (address or password), NameTaken.
        """
        if not self._open:
            raise NotAllowed("Registration is closed on this hub.", todo="Ask its operator for an account.")
        self._registrations.count(address)
        user = await self.create(new, address=address)
        return await self._signed_in(user, "register", address)

    async def create(self, new: NewAccount, *, admin: bool = False, address: str = "") -> UserRow:
        """Make an account, open registration or not; for the operator. Raises BadName, BadInput, NameTaken."""
        check_name(new.username, "user")
        email = _email(new.email)
        if not _SHORTEST <= len(new.password) <= _LONGEST:
            raise BadInput(
                f"A password has {_SHORTEST} to {_LONGEST} characters; this one has {len(new.password)}.",
                todo="Choose another password.",
            )
        now = self._clock.now()
        hashed = await self._hash(new.password)
        user = UserRow(self._chance.new_id(), new.username, email, hashed, admin, None, now)
        try:
            async with self._database.write() as connection:
                if await people.by_name(connection, user.username) is not None:
                    raise NameTaken(f"There is somebody called {user.username}.", todo="Choose another user name.")
                if await people.by_email(connection, email) is not None:
                    raise NameTaken("That mail address has an account.", todo="Sign in: wio login.")
                await people.add(connection, user)
                await self._audit.record(connection, _actor(user, address), "account.create", user.username, admin=admin)
        except IntegrityError as error:  # somebody else took it between our look and our writing
            raise NameTaken("That user name or mail address was taken just now.", todo="Choose another one.") from error
        return user

    async def login(self, login: Login, address: str) -> SignedIn:
        """Sign in. Raises WrongPassword, TooMany."""
        email = login.email.strip().lower()[:254]
        pair = f"{address} {email}"
        self._addresses.count(address)
        self._logins.count(pair)
        async with self._database.read() as connection:
            user = await people.by_email(connection, email)
        # Somebody unknown costs as much time as a wrong password, so that time tells nothing about who has an account.
        good = await self._verify(self._nobody if user is None else user.password, login.password)
        if user is None or not good or user.disabled_at is not None:
            # The limits above bound how many such lines anybody can cause. What was typed is not kept: it may be a password.
            who = msgspec.structs.replace(HUB, address=address) if user is None else _actor(user, address)
            async with self._database.write() as connection:
                target = "(nobody)" if user is None else user.username
                await self._audit.record(connection, who, "login.refused", target)
            raise WrongPassword("Mail address and password do not belong together.", todo="Try again: wio login.")
        self._logins.forget(pair)
        return await self._signed_in(user, "login", address)

    async def logout(self, token: str) -> None:
        """End a token, at once on this worker, within a few seconds on others."""
        digest = _digest(token)
        self._known.pop(digest, None)
        async with self._database.write() as connection:
            holder = await people.holder(connection, digest, self._clock.now())
            await people.revoke_token(connection, digest, self._clock.now())
            if holder is not None:
                who = Actor(UserId(holder.id), holder.username, holder.admin)
                await self._audit.record(connection, who, "logout", holder.username)
        self._known.pop(digest, None)  # a lookup that was on its way may have put it back

    async def _signed_in(self, user: UserRow, label: str, address: str) -> SignedIn:
        now = self._clock.now()
        token = _PREFIX + to_text(self._chance.secret(32))
        expires = now + TOKEN_LIFE_S * _MICROSECOND
        row = TokenRow(self._chance.new_id(), _digest(token), user.id, label, now, expires)
        async with self._database.write() as connection:
            await people.add_token(connection, row)
            await self._audit.record(connection, _actor(user, address), "login", user.username, token=f"{row.id:x}", by=label)
        return SignedIn(token, expires, _person(user))

    # -------------------------------------------------------------------------------------------------- who asks

    async def actor(self, token: str, address: str) -> Actor:
        """Return who holds this token. Raises NotSignedIn."""
        digest = _digest(token)
        now = self._clock.now()
        known = self._known.get(digest)
        if known is not None and now < known.until:
            return msgspec.structs.replace(known.actor, address=address)
        holder = await self._database.run_read(lambda connection: people.holder(connection, digest, now))
        if holder is None:
            self._known.pop(digest, None)
            raise NotSignedIn("This token is not good, or not good any more.", todo="Sign in again: wio login.")
        actor = Actor(UserId(holder.id), holder.username, holder.admin, address)
        self._known.pop(digest, None)
        self._known[digest] = _Known(actor, min(holder.expires_at, now + _KNOWN_FOR_S * _MICROSECOND))
        if len(self._known) > _KNOWN_AT_MOST:
            self._known.popitem(last=False)
        return actor

    async def person(self, actor: Actor) -> Person:
        """Return who that is. Raises NotSignedIn where the account is gone."""
        async with self._database.read() as connection:
            user = await people.by_id(connection, actor.id)
        if user is None:
            raise NotSignedIn("This account is gone.")
        return _person(user)

    async def disable(self, username: str, by: Actor) -> None:
        """End an account, its tokens, its links, and what its keys open on every node. Raises NotAllowed, UnknownUser."""
        if not by.admin:
            raise NotAllowed("Only an admin of this hub may disable accounts.")
        async with self._database.write() as connection:
            user = await people.by_name(connection, username)
            if user is None:
                raise UnknownUser(f"There is nobody called {shown(username)}.")
            await people.disable(connection, user.id, self._clock.now())
            await self._audit.record(connection, by, "account.disable", username)
        self._known.clear()
        await self._settling.renew(Subject(SubjectKind.PERSON, user.id, user.username))
        if self._wither is not None:
            await self._wither()

    async def enable(self, username: str, by: Actor) -> None:
        """Let somebody back in, to everything they were given; they sign in anew. Raises NotAllowed, UnknownUser."""
        if not by.admin:
            raise NotAllowed("Only an admin of this hub may enable accounts.")
        async with self._database.write() as connection:
            user = await people.by_name(connection, username)
            if user is None:
                raise UnknownUser(f"There is nobody called {shown(username)}.")
            await people.enable(connection, user.id)
            await self._audit.record(connection, by, "account.enable", username)
        await self._settling.renew(Subject(SubjectKind.PERSON, user.id, user.username))

    # -------------------------------------------------------------------------------------------------- hashing

    async def _hash(self, password: str) -> str:
        salt = self._chance.secret(16)
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.hash, _bytes(password), salt=salt)

    async def _verify(self, hashed: str, password: str) -> bool:
        if len(password) > _LONGEST:
            return False
        async with self._hashing:
            try:
                return await asyncio.to_thread(self._hasher.verify, hashed, _bytes(password))
            except (VerificationError, InvalidHashError):
                return False


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


def _email(text: str) -> str:
    email = text.strip().lower()
    if not _EMAIL.match(email) or not email.isprintable():
        raise BadInput(f"{shown(text)} is not a mail address.")
    return email


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _person(user: UserRow) -> Person:
    return Person(user.id, user.username, user.email, user.admin, user.created_at)


def _actor(user: UserRow, address: str) -> Actor:
    return Actor(UserId(user.id), user.username, user.admin, address)
