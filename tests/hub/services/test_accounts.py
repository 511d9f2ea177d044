"""Accounts, passwords and tokens."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from hub.db.tables import tokens, users
from hub.services.ports import Actor
from protocol.api import Login, NewAccount, NewShare
from protocol.errors import BadInput, BadName, NameTaken, NotAllowed, NotSignedIn, TooMany, UnknownUser, WrongPassword
from protocol.messages import SetGrants

HERE = "192.0.2.1"
ON_BOTH = {"test_somebody_registers_signs_in_and_out", "test_a_name_that_two_take_at_once_goes_to_one"}
GOOD = "correct horse battery"


async def test_somebody_registers_signs_in_and_out(bench: Any) -> None:
    first = await bench.accounts.register(NewAccount(" Alice@Lab.example ", "alice", GOOD), HERE)
    assert (first.person.username, first.person.email, first.person.admin) == ("alice", "alice@lab.example", False)
    actor = await bench.accounts.actor(first.token, HERE)
    assert actor == Actor(first.person.id, "alice", admin=False, address=HERE)  # type: ignore[arg-type]  # an id is an id
    assert await bench.accounts.person(actor) == first.person
    second = await bench.accounts.login(Login("ALICE@lab.example", GOOD), HERE)
    await bench.accounts.logout(first.token)
    with pytest.raises(NotSignedIn):
        await bench.accounts.actor(first.token, HERE)
    assert (await bench.accounts.actor(second.token, "198.51.100.7")).address == "198.51.100.7"


async def test_neither_password_nor_token_lies_in_the_database(bench: Any) -> None:
    signed = await bench.accounts.register(NewAccount("a@b", "alice", GOOD), HERE)
    async with bench.database.read() as connection:
        rows = [*await connection.execute(select(users)), *await connection.execute(select(tokens))]
    assert GOOD not in repr(rows)
    assert signed.token not in repr(rows)
    assert signed.token.startswith("wio_")
    assert len(signed.token) >= 40


async def test_a_wrong_password_and_an_unknown_address_look_the_same(bench: Any, alice: Actor) -> None:
    told = []
    for email, password in [("alice@lab.example", "wrong"), ("nobody@lab.example", GOOD), ("\0", GOOD), ("a", "x" * 5000)]:
        with pytest.raises(WrongPassword) as caught:
            await bench.accounts.login(Login(email, password), HERE)
        told.append(caught.value.problem)
    assert len(set(told)) == 1
    assert next(one.action for one in await bench.audit.entries(alice)) == "login.refused"


async def test_guessing_is_slowed_down_for_that_address_and_account_only(bench: Any, alice: Actor) -> None:
    del alice
    for _ in range(10):
        with pytest.raises(WrongPassword):
            await bench.accounts.login(Login("alice@lab.example", "wrong"), HERE)
    with pytest.raises(TooMany, match="sign-ins") as caught:
        await bench.accounts.login(Login("alice@lab.example", GOOD), HERE)
    assert "Try again in" in caught.value.todo
    await bench.accounts.login(Login("alice@lab.example", GOOD), "198.51.100.7")
    bench.clock.pass_s(601)
    await bench.accounts.login(Login("alice@lab.example", GOOD), HERE)


async def test_a_good_sign_in_starts_the_count_again(bench: Any, alice: Actor) -> None:
    del alice
    for _ in range(3):
        for _ in range(9):
            with pytest.raises(WrongPassword):
                await bench.accounts.login(Login("alice@lab.example", "wrong"), HERE)
        await bench.accounts.login(Login("alice@lab.example", GOOD), HERE)


async def test_names_and_addresses_are_taken_once(bench: Any, alice: Actor) -> None:
    del alice
    with pytest.raises(NameTaken, match="somebody called alice"):
        await bench.accounts.register(NewAccount("x@lab.example", "alice", GOOD), HERE)
    with pytest.raises(NameTaken, match="mail address"):
        await bench.accounts.register(NewAccount("Alice@lab.example", "alice2", GOOD), HERE)


async def test_a_name_that_two_take_at_once_goes_to_one(bench: Any) -> None:
    made = await asyncio.gather(
        *(bench.accounts.register(NewAccount(f"a{at}@lab.example", "alice", GOOD), HERE) for at in range(4)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in made) == ["NameTaken"] * 3 + ["SignedIn"]


@pytest.mark.parametrize(
    ("new", "error"),
    [
        (NewAccount("a@b", "../x", GOOD), BadName),
        (NewAccount("a@b", "public", GOOD), BadName),
        (NewAccount("a@b", "alice", "short"), BadInput),
        (NewAccount("a@b", "alice", "x" * 1001), BadInput),
        (NewAccount("no address", "alice", GOOD), BadInput),
        (NewAccount("a@b@c", "alice", GOOD), BadInput),
        (NewAccount("a@b\0", "alice", GOOD), BadInput),
        (NewAccount("", "alice", GOOD), BadInput),
    ],
)
async def test_what_cannot_be_an_account_is_refused(bench: Any, new: NewAccount, error: type[Exception]) -> None:
    with pytest.raises(error):
        await bench.accounts.register(new, HERE)


async def test_closed_registration_lets_only_the_operator_make_accounts(bench: Any) -> None:
    bench.accounts._open = False
    with pytest.raises(NotAllowed, match="closed"):
        await bench.accounts.register(NewAccount("a@b", "alice", GOOD), HERE)
    assert (await bench.accounts.create(NewAccount("a@b", "alice", GOOD), admin=True)).admin


async def test_tokens_run_out(bench: Any) -> None:
    signed = await bench.accounts.register(NewAccount("a@b", "alice", GOOD), HERE)
    await bench.accounts.actor(signed.token, HERE)
    bench.clock.time = signed.expires_at
    for token in (signed.token, "wio_nonsense", "", "\ud800"):
        with pytest.raises(NotSignedIn):
            await bench.accounts.actor(token, HERE)


async def test_a_token_ended_elsewhere_is_believed_for_three_seconds_at_most(bench: Any) -> None:
    signed = await bench.accounts.register(NewAccount("a@b", "alice", GOOD), HERE)
    await bench.accounts.actor(signed.token, HERE)
    async with bench.database.write() as connection:  # as another worker does it
        await connection.execute(tokens.update().values(revoked_at=bench.clock.now()))
    bench.clock.pass_s(3)
    with pytest.raises(NotSignedIn):
        await bench.accounts.actor(signed.token, HERE)


async def test_a_disabled_account_is_cut_off_everywhere_at_once(bench: Any, alice: Actor, lab3: Any) -> None:
    admin = await bench.person("root1", admin=True)
    bob = await bench.accounts.register(NewAccount("bob@lab.example", "bob", GOOD), HERE)
    actor = await bench.accounts.actor(bob.token, HERE)
    await bench.root(alice)
    await bench.workspace(alice)
    await bench.sharing.share(alice, "alice", "scans", "bob", NewShare())
    await bench.key(actor, "alice/scans")
    assert lab3.grants(actor.id)
    with pytest.raises(NotAllowed):
        await bench.accounts.disable("bob", alice)
    with pytest.raises(UnknownUser):
        await bench.accounts.disable("nobody", admin)
    await bench.accounts.disable("bob", admin)
    assert lab3.grants(actor.id) == {}
    assert len(lab3.asked_for(SetGrants)[-1].grant_set.body) > 0
    with pytest.raises(NotSignedIn):
        await bench.accounts.actor(bob.token, HERE)
    with pytest.raises(WrongPassword):
        await bench.accounts.login(Login("bob@lab.example", GOOD), HERE)
