"""Invite, list, show, confirm and evict nodes."""

from __future__ import annotations

from litestar import Controller, delete, get, post
from litestar.params import FromPath, JSONBody

from hub.web.call import Call
from hub.web.problems import problems
from protocol.api import Alarm, Confirmed, Invitation, NewInvitation, Node


class NodeRoutes(Controller):
    """Storage servers and their agents."""

    tags = ("nodes",)

    @post("/invitations", operation_id="invite", responses=problems(400, 401, 403, 409, 413, 429))
    async def invite(self, request: Call, data: JSONBody[NewInvitation]) -> Invitation:
        """Make a join string, which works once and is shown once."""
        return await request.services.enrolment.invite(request.actor, data)

    @get("/nodes", operation_id="nodes", responses=problems(401))
    async def nodes(self, request: Call) -> list[Node]:
        """List the nodes this person may know of."""
        return await request.services.enrolment.nodes(request.actor)

    @get("/nodes/{node:str}", operation_id="node", responses=problems(400, 401, 403, 404))
    async def node(self, request: Call, node: FromPath[str]) -> Node:
        """Show one node."""
        return await request.services.enrolment.node(request.actor, node)

    @get("/alarms", operation_id="alarms", responses=problems(401))
    async def alarms(self, request: Call) -> list[Alarm]:
        """List what is wrong with the nodes one owns; for an administrator with all."""
        return await request.services.alarms.alarms(request.actor)

    @delete("/nodes/{node:str}", operation_id="evict", responses=problems(400, 401, 403, 404))
    async def evict(self, request: Call, node: FromPath[str]) -> None:
        """Remove a node from the hub."""
        await request.services.enrolment.evict(request.actor, node)

    @post("/nodes/{node:str}/confirm", operation_id="confirm_node", status_code=200, responses=problems(400, 401, 403, 404))
    async def confirm(self, request: Call, node: FromPath[str]) -> Confirmed:
        """Say that what this hub knows of a node is right, after it came back from a backup; all of it is sent then."""
        return await request.services.settling.confirm(request.actor, node)
