"""Set, list and remove quotas."""

from __future__ import annotations

from litestar import Controller, delete, get, put
from litestar.params import FromPath, JSONBody

from hub.web.call import Call
from hub.web.problems import problems
from protocol.api import NewQuota, Quota


class QuotaRoutes(Controller):
    """How much may lie in what: a person's workspaces, a root, one workspace."""

    tags = ("quotas",)

    @get("/quotas", operation_id="quotas", responses=problems(401))
    async def quotas(self, request: Call) -> list[Quota]:
        """List the quotas that concern this person, and how they stand."""
        return await request.services.quotas.list(request.actor)

    @put("/quotas", operation_id="set_quota", responses=problems(400, 401, 403, 404, 413))
    async def set_quota(self, request: Call, data: JSONBody[NewQuota]) -> Quota:
        """Set a quota, or change the one that is there; it is enforced at once, on keys that are out as well."""
        return await request.services.quotas.put(request.actor, data)

    @delete("/quotas/{id:int}", operation_id="remove_quota", responses=problems(400, 401, 403, 404))
    async def remove_quota(self, request: Call, id: FromPath[int]) -> None:  # noqa: A002  - the contract's name
        """Remove a quota."""
        await request.services.quotas.remove(request.actor, id)
