"""Groups and who is in them."""

from __future__ import annotations

from litestar import Controller, delete, get, post, put
from litestar.params import FromPath, JSONBody

from hub.web.call import Call
from hub.web.problems import problems
from protocol.api import Group, GroupChange, NewGroup, NewMember

_GROUP = "/groups/{group:str}"
_MEMBER = _GROUP + "/members/{user:str}"


class GroupRoutes(Controller):
    """People who are given something together, as ``@name``."""

    tags = ("groups",)

    @post("/groups", operation_id="create_group", responses=problems(400, 401, 409, 413, 429))
    async def create(self, request: Call, data: JSONBody[NewGroup]) -> Group:
        """Make a group; its maker owns it and is in it."""
        return await request.services.groups.create(request.actor, data)

    @get("/groups", operation_id="groups", responses=problems(401))
    async def groups(self, request: Call) -> list[Group]:
        """List all groups; who is in one is told to those in it, and to admins."""
        return await request.services.groups.list(request.actor)

    @get(_GROUP, operation_id="group", responses=problems(400, 401, 404))
    async def group(self, request: Call, group: FromPath[str]) -> Group:
        """Show one group."""
        return await request.services.groups.show(request.actor, group)

    @delete(_GROUP, operation_id="delete_group", status_code=200, responses=problems(202, 400, 401, 403, 404))
    async def remove(self, request: Call, group: FromPath[str]) -> GroupChange:
        """Delete a group: what it was given ends for everybody in it, also on keys that are out."""
        return await request.services.groups.delete(request.actor, group)

    @put(_MEMBER, operation_id="put_member", responses=problems(202, 400, 401, 403, 404, 413))
    async def put_member(
        self, request: Call, group: FromPath[str], user: FromPath[str], data: JSONBody[NewMember]
    ) -> GroupChange:
        """Take somebody in, or change whether they may change who is in it; answers with receipts."""
        return await request.services.groups.put_member(request.actor, group, user, data)

    @delete(_MEMBER, operation_id="remove_member", status_code=200, responses=problems(202, 400, 401, 403, 404))
    async def remove_member(self, request: Call, group: FromPath[str], user: FromPath[str]) -> GroupChange:
        """Take somebody out, or leave; answers with receipts of what nodes did to keys that were out."""
        return await request.services.groups.remove_member(request.actor, group, user)
