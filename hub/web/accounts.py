"""Register, sign in, sign out, who am I."""

from __future__ import annotations

from litestar import Controller, delete, get, post
from litestar.params import JSONBody

from hub.web.call import OPEN, Call
from hub.web.problems import problems
from protocol.api import Login, NewAccount, Person, SignedIn


class AccountRoutes(Controller):
    """People and their tokens."""

    tags = ("accounts",)

    @post("/accounts", operation_id="register", opt={OPEN: True}, security=[], responses=problems(400, 403, 409, 413, 429))
    async def register(self, request: Call, data: JSONBody[NewAccount]) -> SignedIn:
        """Make an account and sign in."""
        return await request.services.accounts.register(data, request.address)

    @post("/sessions", operation_id="login", opt={OPEN: True}, security=[], responses=problems(400, 401, 403, 413, 429))
    async def login(self, request: Call, data: JSONBody[Login]) -> SignedIn:
        """Sign in."""
        return await request.services.accounts.login(data, request.address)

    @delete("/sessions/current", operation_id="logout", responses=problems(401))
    async def logout(self, request: Call) -> None:
        """End the token that this request carries."""
        await request.services.accounts.logout(request.token)

    @get("/me", operation_id="me", responses=problems(401))
    async def me(self, request: Call) -> Person:
        """Say who this token belongs to."""
        return await request.services.accounts.person(request.actor)
