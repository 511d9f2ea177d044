"""Ask for storage keys."""

from __future__ import annotations

from litestar import Controller, post
from litestar.params import JSONBody

from hub.web.call import Call
from hub.web.problems import problems
from protocol.api import AssertionIssued, Credentials, NewAssertion, NewCredentials


class KeyRoutes(Controller):
    """Sealed storage keys, which this hub relays and cannot read."""

    tags = ("keys",)

    @post("/credentials", operation_id="credentials", responses=problems(202, 400, 401, 403, 404, 409, 413, 429, 502))
    async def credentials(self, request: Call, data: JSONBody[NewCredentials]) -> Credentials:
        """Mint one key per node that the asked paths lie on."""
        issued = await request.services.issuing.issue(request.actor, data)
        request.services.metrics.minted(len(issued.keys))
        return issued

    @post("/assertions", operation_id="issueAssertion", responses=problems(202, 400, 401, 403, 404, 409, 429, 502))
    async def assertion(self, request: Call, data: JSONBody[NewAssertion]) -> AssertionIssued:
        """Vouch for the one who asks, to one node, for a time."""
        return await request.services.assertions.issue(request.actor, data)
