"""Make, list, show, change, hand over and remove workspaces; share them and take shares back."""

from __future__ import annotations

from typing import Literal

from litestar import Controller, delete, get, patch, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from hub.web.call import Call
from hub.web.problems import problems
from protocol.api import (
    Handover,
    NewShare,
    NewWorkspace,
    Share,
    ShareChange,
    Workspace,
    WorkspaceChange,
    WorkspaceEnded,
)

Which = Literal["mine", "shared", "public", "all"]
_WORKSPACE = "/workspaces/{owner:str}/{name:str}"
_SHARE = _WORKSPACE + "/shares/{who:str}"


class WorkspaceRoutes(Controller):
    """Folders in roots; the unit of permission. ``me`` may stand for ``{owner}``."""

    tags = ("workspaces",)

    @post("/workspaces", operation_id="create_workspace", responses=problems(202, 400, 401, 403, 404, 409, 413, 502))
    async def create(self, request: Call, data: JSONBody[NewWorkspace]) -> Workspace:
        """Make a workspace."""
        return await request.services.workspaces.create(request.actor, data)

    @get("/workspaces", operation_id="workspaces", responses=problems(400, 401))
    async def workspaces(self, request: Call, which: FromQuery[Which] = "all") -> list[Workspace]:
        """List workspaces: one's own, those that others share with this person, public ones, or all of these.

        With the public ones come those that describe themselves: name, owner and description, and no permission.
        """
        return await request.services.workspaces.list(request.actor, which)

    @get(_WORKSPACE, operation_id="workspace", responses=problems(400, 401, 403, 404))
    async def workspace(self, request: Call, owner: FromPath[str], name: FromPath[str]) -> Workspace:
        """Show one workspace."""
        return await request.services.workspaces.show(request.actor, request.owner(owner), name)

    @patch(_WORKSPACE, operation_id="change_workspace", responses=problems(202, 400, 401, 403, 404, 409, 413))
    async def change(
        self, request: Call, owner: FromPath[str], name: FromPath[str], data: JSONBody[WorkspaceChange]
    ) -> Workspace:
        """Describe, rename or archive a workspace, or open an archived one again."""
        return await request.services.workspace_changes.change(request.actor, request.owner(owner), name, data)

    @post(
        _WORKSPACE + "/handover",
        operation_id="hand_over",
        status_code=200,
        responses=problems(202, 400, 401, 403, 404, 409, 413),
    )
    async def hand_over(self, request: Call, owner: FromPath[str], name: FromPath[str], data: JSONBody[Handover]) -> Workspace:
        """Give a workspace to somebody else, who then owns it."""
        return await request.services.workspace_changes.hand_over(request.actor, request.owner(owner), name, data)

    @delete(_WORKSPACE, operation_id="delete_workspace", status_code=200, responses=problems(202, 400, 401, 403, 404))
    async def remove(self, request: Call, owner: FromPath[str], name: FromPath[str]) -> WorkspaceEnded:
        """Take a workspace out of wio; its files stay where they lie."""
        return await request.services.workspace_changes.delete(request.actor, request.owner(owner), name)


class ShareRoutes(Controller):
    """Who a workspace is open to. ``{who}`` is a user name, ``@group`` or ``public``."""

    tags = ("shares",)

    @get(_WORKSPACE + "/shares", operation_id="shares", responses=problems(400, 401, 403, 404))
    async def shares(self, request: Call, owner: FromPath[str], name: FromPath[str]) -> list[Share]:
        """List who a workspace is shared with."""
        return await request.services.sharing.shares(request.actor, request.owner(owner), name)

    @put(_SHARE, operation_id="share", responses=problems(202, 400, 401, 403, 404, 409, 413, 429, 502))
    async def share(
        self, request: Call, owner: FromPath[str], name: FromPath[str], who: FromPath[str], data: JSONBody[NewShare]
    ) -> ShareChange:
        """Share a workspace, or change a share; answers with receipts of what its node did."""
        return await request.services.sharing.share(request.actor, request.owner(owner), name, who, data)

    @delete(_SHARE, operation_id="unshare", status_code=200, responses=problems(202, 400, 401, 403, 404, 409, 502))
    async def unshare(self, request: Call, owner: FromPath[str], name: FromPath[str], who: FromPath[str]) -> ShareChange:
        """Take a share back; answers with receipts of what its node did to keys that were out."""
        return await request.services.sharing.unshare(request.actor, request.owner(owner), name, who)
