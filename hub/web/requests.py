"""Asking for access, and answering."""

from __future__ import annotations

from litestar import Controller, get, post
from litestar.params import FromPath, JSONBody

from hub.web.call import Call
from hub.web.problems import problems
from protocol.api import AccessRequest, NewAnswer, NewRequest


class RequestRoutes(Controller):
    """Requests for access to workspaces that one can know of."""

    tags = ("requests",)

    @post("/requests", operation_id="request_access", responses=problems(400, 401, 404, 409, 413, 429))
    async def create(self, request: Call, data: JSONBody[NewRequest]) -> AccessRequest:
        """Ask for access to somebody's workspace."""
        return await request.services.requests.create(request.actor, data)

    @get("/requests", operation_id="requests", responses=problems(401))
    async def requests(self, request: Call) -> list[AccessRequest]:
        """List one's own requests, and those that one may answer: open ones first."""
        return await request.services.requests.list(request.actor)

    @post(
        "/requests/{id:int}/answer",
        operation_id="answer_request",
        status_code=200,
        responses=problems(202, 400, 401, 403, 404, 409, 413, 502),
    )
    async def answer(
        self,
        request: Call,
        id: FromPath[int],  # noqa: A002 - the contract's name
        data: JSONBody[NewAnswer],
    ) -> AccessRequest:
        """Answer a request; yes shares the workspace with whoever asked."""
        return await request.services.requests.answer(request.actor, id, data)
