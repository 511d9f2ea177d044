"""Who may do what through the API: every route, every role, in one table for people to read and for a test to hold to.

To add a route: add what to send to ``CASES``, run the test, and add the line that it asks for to ``TABLE``, with what ought to
be there, which need not be what the hub answers. What only reads stands above what changes something.

Cells: ``ok``, it is done. ``yes`` and ``no``, it is answered, and the thing itself is in the answer or is not. ``401``, who is
that? ``403``, known and refused. ``404``, it is hidden: the answer is the one that there is no such thing. ``400``, there is
nothing to ask for, as for what one has already.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

ROLES: Final = {
    "out": "nobody signed in: no token, a made-up one, one that was revoked or has expired, one of a disabled account",
    "str": "a stranger: has an account and nothing else",
    "rd": "reads the workspace",
    "wr": "writes in the workspace",
    "dr": "drops files into the workspace",
    "mg": "manages the workspace",
    "ow": "owns the workspace",
    "gm": "is in the group that reads the workspace",
    "gg": "manages that group",
    "go": "owns that group",
    "cr": "may make workspaces in the root",
    "rm": "manages the root, and the hidden one",
    "no": "owns the node",
    "on": "owns another node",
    "ad": "administers the hub",
}

TABLE: Final = """\
                                                          | out str rd  wr  dr  mg  ow  gm  gg  go  cr  rm  no  on  ad
GET /health                                               | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
GET /hub                                                  | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
GET /openapi.json                                         | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
GET /me                                                   | 401 ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
GET /nodes                                                | 401 yes yes yes yes yes yes yes yes yes yes yes yes yes yes
GET /nodes/{node}                                         | 401 ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
GET /roots                                                | 401 yes yes yes yes yes yes yes yes yes yes yes yes yes yes
GET /roots (unlisted)                                     | 401 no  no  no  no  no  no  no  no  no  no  yes yes no  yes
GET /roots/{node}/{root}                                  | 401 ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
GET /roots/{node}/{root} (unlisted)                       | 401 404 404 404 404 404 404 404 404 404 404 ok  ok  404 ok
GET /roots/{node}/{root}/scan                             | 401 ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
GET /roots/{node}/{root}/scan (unlisted)                  | 401 404 404 404 404 404 404 404 404 404 404 ok  ok  404 ok
GET /workspaces                                           | 401 no  yes yes yes yes yes yes yes yes no  no  no  no  no
GET /workspaces (public)                                  | 401 no  no  no  no  no  no  no  no  no  no  no  no  no  no
GET /workspaces (described)                               | 401 yes no  no  no  no  no  no  no  no  yes yes yes yes yes
GET /workspaces/{owner}/{name}                            | 401 404 ok  ok  ok  ok  ok  ok  ok  ok  404 404 404 404 404
GET /workspaces/{owner}/{name} (described)                | 401 ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
GET /workspaces/{owner}/{name}/shares                     | 401 404 403 403 403 ok  ok  403 403 403 404 404 404 404 404
GET /files                                                | 401 404 ok  ok  403 ok  ok  ok  ok  ok  404 404 404 404 404
GET /search                                               | 401 no  yes yes no  yes yes yes yes yes no  no  no  no  no
GET /changes                                              | 401 404 ok  ok  403 ok  ok  ok  ok  ok  404 404 404 404 404
GET /changes (of all)                                     | 401 ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
GET /file                                                 | 401 404 ok  ok  403 ok  ok  ok  ok  ok  404 404 404 404 404
GET /unreadable                                           | 401 403 403 403 403 403 403 403 403 403 403 ok  ok  403 ok
GET /unreadable (unlisted)                                | 401 404 404 404 404 404 404 404 404 404 404 ok  ok  404 ok
GET /alarms                                               | 401 ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
GET /audit                                                | 401 no  yes no  no  no  yes no  no  no  no  no  yes no  yes
GET /audit (of one)                                       | 401 no  no  no  no  yes yes no  no  no  no  no  yes no  yes
GET /audit/check                                          | 401 403 403 403 403 403 403 403 403 403 403 403 403 403 ok
GET /access                                               | 401 404 403 403 403 ok  ok  403 403 403 404 404 ok  404 ok
GET /accesses                                             | 401 404 403 403 403 ok  ok  403 403 403 404 404 ok  404 ok
GET /why                                                  | 401 404 ok  403 403 ok  ok  403 403 403 404 404 ok  404 ok
GET /why (of oneself)                                     | 401 no  yes yes yes yes yes yes yes yes no  no  yes no  yes
GET /groups                                               | 401 no  no  no  no  no  no  yes yes yes no  no  no  no  yes
GET /groups/{group}                                       | 401 no  no  no  no  no  no  yes yes yes no  no  no  no  yes
GET /requests                                             | 401 no  no  no  no  yes yes no  no  no  no  no  no  no  no
GET /links                                                | 401 no  yes no  no  no  no  no  no  no  no  no  no  no  no
GET /links (below a path)                                 | 401 404 ok  ok  ok  ok  ok  ok  ok  ok  404 404 404 404 404
GET /links (of others)                                    | 401 404 yes no  no  yes yes no  no  no  404 404 404 404 404
GET /quotas                                               | 401 no  yes yes yes yes yes yes yes yes no  yes yes no  yes

POST /accounts                                            | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
POST /sessions                                            | ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
DELETE /sessions/current                                  | 401 ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
POST /credentials                                         | 401 404 ok  ok  ok  ok  ok  ok  ok  ok  404 404 404 404 404
POST /credentials (to read)                               | 401 404 ok  ok  403 ok  ok  ok  ok  ok  404 404 404 404 404
POST /links                                               | 401 404 ok  ok  403 ok  ok  ok  ok  ok  404 404 404 404 404
POST /links (for uploading)                               | 401 404 403 ok  ok  ok  ok  403 403 403 404 404 404 404 404
DELETE /links/{id}                                        | 401 404 ok  404 404 ok  ok  404 404 404 404 404 404 404 404
POST /assertions                                          | 401 403 ok  403 403 403 ok  403 403 403 403 403 403 403 403

POST /invitations                                         | 401 ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
POST /nodes/{node}/confirm                                | 401 403 403 403 403 403 403 403 403 403 403 403 ok  403 ok
DELETE /nodes/{node}                                      | 401 403 403 403 403 403 403 403 403 403 403 403 ok  403 ok
POST /nodes/{node}/survey                                 | 401 403 403 403 403 403 403 403 403 403 403 403 ok  403 403
POST /roots                                               | 401 403 403 403 403 403 403 403 403 403 403 403 ok  403 403
POST /roots/{node}/{root}/scan                            | 401 403 403 403 403 403 403 403 403 403 403 ok  ok  403 ok
POST /roots/{node}/{root}/scan (unlisted)                 | 401 404 404 404 404 404 404 404 404 404 404 ok  ok  404 ok
POST /roots/{node}/{root}/survey                          | 401 403 403 403 403 403 403 403 403 403 403 ok  ok  403 ok
POST /roots/{node}/{root}/survey (unlisted)               | 401 404 404 404 404 404 404 404 404 404 404 ok  ok  404 ok
POST /roots/{node}/{root}/verify                          | 401 403 403 403 403 403 403 403 403 403 403 ok  ok  403 ok
POST /roots/{node}/{root}/verify (unlisted)               | 401 404 404 404 404 404 404 404 404 404 404 ok  ok  404 ok
PATCH /roots/{node}/{root}                                | 401 403 403 403 403 403 403 403 403 403 403 ok  ok  403 ok
PATCH /roots/{node}/{root} (its managers)                 | 401 403 403 403 403 403 403 403 403 403 403 403 ok  403 ok
PATCH /roots/{node}/{root} (unlisted)                     | 401 404 404 404 404 404 404 404 404 404 404 ok  ok  404 ok
DELETE /roots/{node}/{root}                               | 401 403 403 403 403 403 403 403 403 403 403 403 ok  403 ok
DELETE /roots/{node}/{root} (unlisted)                    | 401 404 404 404 404 404 404 404 404 404 404 403 ok  404 ok

POST /workspaces                                          | 401 403 403 403 403 403 ok  403 403 403 ok  403 ok  403 403
POST /workspaces (unlisted)                               | 401 404 404 404 404 404 404 404 404 404 404 403 ok  404 403
PATCH /workspaces/{owner}/{name}                          | 401 404 403 403 403 ok  ok  403 403 403 404 404 404 404 404
PATCH /workspaces/{owner}/{name} (its name)               | 401 404 403 403 403 403 ok  403 403 403 404 404 404 404 404
POST /workspaces/{owner}/{name}/handover                  | 401 404 403 403 403 403 ok  403 403 403 404 404 404 404 404
DELETE /workspaces/{owner}/{name}                         | 401 404 403 403 403 403 ok  403 403 403 404 404 404 404 404
PUT /workspaces/{owner}/{name}/shares/{who}               | 401 404 403 403 403 ok  ok  403 403 403 404 404 404 404 404
PUT /workspaces/{owner}/{name}/shares/{who} (with all)    | 401 404 403 403 403 ok  ok  403 403 403 404 404 404 404 404
DELETE /workspaces/{owner}/{name}/shares/{who}            | 401 404 403 403 403 ok  ok  403 403 403 404 404 404 404 404
POST /requests                                            | 401 404 ok  ok  ok  400 400 ok  ok  ok  404 404 404 404 404
POST /requests (described)                                | 401 ok  ok  ok  ok  400 400 ok  ok  ok  ok  ok  ok  ok  ok
POST /requests/{id}/answer                                | 401 404 404 404 404 ok  ok  404 404 404 404 404 404 404 404

POST /groups                                              | 401 ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok  ok
PUT /groups/{group}/members/{user}                        | 401 403 403 403 403 403 403 403 ok  ok  403 403 403 403 403
PUT /groups/{group}/members/{user} (to manage)            | 401 403 403 403 403 403 403 403 403 ok  403 403 403 403 403
DELETE /groups/{group}/members/{user}                     | 401 403 403 403 403 403 403 ok  ok  ok  403 403 403 403 ok
DELETE /groups/{group}                                    | 401 403 403 403 403 403 403 403 403 ok  403 403 403 403 ok
PUT /quotas                                               | 401 404 403 403 403 403 403 403 403 403 404 ok  ok  404 ok
PUT /quotas (on a root)                                   | 401 403 403 403 403 403 403 403 403 403 403 ok  ok  403 ok
PUT /quotas (on an unlisted root)                         | 401 404 404 404 404 404 404 404 404 404 404 ok  ok  404 ok
PUT /quotas (on a person)                                 | 401 403 403 403 403 403 403 403 403 403 403 403 403 403 ok
DELETE /quotas/{id}                                       | 401 404 403 403 403 403 403 403 403 403 404 ok  ok  404 ok
"""


class Case(msgspec.Struct, frozen=True):
    """What to send, and what it is about. ``{…}`` are the scene's own values.

    ``about`` stands somewhere in the request. With ``absent`` in its place it asks for what is not there: somebody from whom
    the real thing is hidden has to get the same answer. ``shows``: what only those may see in the answer who see the thing.
    ``noted``: the audit trail says that it was refused.
    """

    path: str
    body: dict[str, Any] | None = None
    about: str = ""
    absent: str = "absent"
    shows: str = ""
    noted: bool = False


KEY: Final = "pR4Q0qjU3NVNB0Wq1GmWZ1PqH0tqC8bJ3uYIb2dP5Ho"
"""A public key to seal to; nobody opens anything with it here."""

CASES: Final = {
    # ---------------------------------------------------------------------------------------------- reading
    "GET /health": Case("/health"),
    "GET /hub": Case("/hub"),
    "GET /openapi.json": Case("/openapi.json"),
    "GET /me": Case("/me"),
    "GET /nodes": Case("/nodes", shows='"lab3"'),
    "GET /nodes/{node}": Case("/nodes/lab3", about="lab3"),
    "GET /roots": Case("/roots", shows='"data"'),
    "GET /roots (unlisted)": Case("/roots", shows='"hidden"'),
    "GET /roots/{node}/{root}": Case("/roots/lab3/data", about="data"),
    "GET /roots/{node}/{root} (unlisted)": Case("/roots/lab3/hidden", about="hidden"),
    "GET /roots/{node}/{root}/scan": Case("/roots/lab3/data/scan", about="data"),
    "GET /roots/{node}/{root}/scan (unlisted)": Case("/roots/lab3/hidden/scan", about="hidden"),
    "GET /workspaces": Case("/workspaces", shows='"secret"'),
    "GET /workspaces (public)": Case("/workspaces?which=public", shows='"secret"'),
    "GET /workspaces (described)": Case("/workspaces?which=public", shows='"told"'),
    "GET /workspaces/{owner}/{name}": Case("/workspaces/owner/secret", about="secret"),
    "GET /workspaces/{owner}/{name} (described)": Case("/workspaces/owner/told", about="told"),
    "GET /workspaces/{owner}/{name}/shares": Case("/workspaces/owner/secret/shares", about="secret"),
    "GET /files": Case("/files?path=owner/secret/", about="secret"),
    "GET /search": Case("/search?q=unheard", shows="unheard-of"),
    "GET /changes": Case("/changes?path=owner/secret/", about="secret"),
    "GET /changes (of all)": Case("/changes"),
    "GET /file": Case("/file?path=owner/secret/unheard-of.csv", about="secret"),
    "GET /unreadable": Case("/unreadable?node=lab3&root=data", about="data"),
    "GET /unreadable (unlisted)": Case("/unreadable?node=lab3&root=hidden", about="hidden"),
    "GET /alarms": Case("/alarms"),
    "GET /audit": Case("/audit", shows="owner/secret"),
    "GET /audit (of one)": Case("/audit?workspace=owner/secret", about="secret", shows="share"),
    "GET /audit/check": Case("/audit/check"),
    "GET /access": Case("/access?path=owner/secret", about="secret"),
    "GET /accesses": Case("/accesses?path=owner/secret", about="secret"),
    "GET /why": Case("/why?path=owner/secret/unheard-of.csv&who=rd", about="secret"),
    "GET /why (of oneself)": Case("/why?path=owner/secret/unheard-of.csv", about="secret", shows='"owner"'),
    "GET /groups": Case("/groups", shows='"gm"'),
    "GET /groups/{group}": Case("/groups/team", shows='"gm"'),
    "GET /requests": Case("/requests", shows="owner/told"),
    "GET /links": Case("/links", shows="owner/told"),
    "GET /links (below a path)": Case("/links?path=owner/secret/", about="secret"),
    "GET /links (of others)": Case("/links?path=owner/told", shows="a-link.csv"),
    "GET /quotas": Case("/quotas", shows="owner/secret"),
    # ---------------------------------------------------------------------------------------------- getting in
    "POST /accounts": Case("/accounts", {"email": "new@lab.example", "username": "new", "password": "correct horse battery"}),
    "POST /sessions": Case("/sessions", {"email": "str@lab.example", "password": "correct horse battery"}),
    "DELETE /sessions/current": Case("/sessions/current"),
    "POST /credentials": Case("/credentials", {"client_key": KEY, "paths": ["owner/secret/"]}, about="secret", noted=True),
    "POST /credentials (to read)": Case(
        "/credentials", {"client_key": KEY, "paths": ["owner/secret/"], "read_only": True}, about="secret", noted=True
    ),
    "POST /links": Case("/links", {"client_key": KEY, "path": "owner/secret/unheard-of.csv"}, about="secret"),
    "POST /links (for uploading)": Case("/links", {"client_key": KEY, "path": "owner/secret/new", "put": True}, about="secret"),
    "DELETE /links/{id}": Case("/links/{link}", about="{link}", absent="4711"),
    "POST /assertions": Case("/assertions", {"node": "lab3"}),
    # ---------------------------------------------------------------------------------------------- nodes, roots
    "POST /invitations": Case("/invitations", {"name": "lab8"}),
    "POST /nodes/{node}/confirm": Case("/nodes/lab3/confirm", about="lab3"),
    "DELETE /nodes/{node}": Case("/nodes/gone", about="gone"),
    "POST /nodes/{node}/survey": Case(
        "/nodes/lab3/survey", {"node": "lab3", "name": "more", "kind": "public", "bucket": "more"}, about="lab3"
    ),
    "POST /roots": Case("/roots", {"node": "lab3", "name": "more", "kind": "public", "bucket": "more"}, about="lab3"),
    "POST /roots/{node}/{root}/scan": Case("/roots/lab3/data/scan", about="data"),
    "POST /roots/{node}/{root}/scan (unlisted)": Case("/roots/lab3/hidden/scan", about="hidden"),
    "POST /roots/{node}/{root}/survey": Case("/roots/lab3/data/survey", about="data"),
    "POST /roots/{node}/{root}/survey (unlisted)": Case("/roots/lab3/hidden/survey", about="hidden"),
    "POST /roots/{node}/{root}/verify": Case("/roots/lab3/data/verify", about="data"),
    "POST /roots/{node}/{root}/verify (unlisted)": Case("/roots/lab3/hidden/verify", about="hidden"),
    "PATCH /roots/{node}/{root}": Case("/roots/lab3/data", {"level": "none"}, about="data"),
    "PATCH /roots/{node}/{root} (its managers)": Case("/roots/lab3/data", {"managers": ["str"]}, about="data"),
    "PATCH /roots/{node}/{root} (unlisted)": Case("/roots/lab3/hidden", {"level": "none"}, about="hidden"),
    "DELETE /roots/{node}/{root}": Case("/roots/lab3/data", about="data"),
    "DELETE /roots/{node}/{root} (unlisted)": Case("/roots/lab3/hidden", about="hidden"),
    # ---------------------------------------------------------------------------------------------- workspaces
    "POST /workspaces": Case("/workspaces", {"name": "mine", "root": "lab3/data"}, about="lab3"),
    "POST /workspaces (unlisted)": Case("/workspaces", {"name": "mine", "root": "lab3/hidden", "folder": "f"}, about="hidden"),
    "PATCH /workspaces/{owner}/{name}": Case("/workspaces/owner/secret", {"archived": True}, about="secret"),
    "PATCH /workspaces/{owner}/{name} (its name)": Case("/workspaces/owner/secret", {"name": "other"}, about="secret"),
    "POST /workspaces/{owner}/{name}/handover": Case("/workspaces/owner/secret/handover", {"to": "str"}, about="secret"),
    "DELETE /workspaces/{owner}/{name}": Case("/workspaces/owner/secret", about="secret"),
    "PUT /workspaces/{owner}/{name}/shares/{who}": Case(
        "/workspaces/owner/secret/shares/on", {"permission": "read"}, about="secret"
    ),
    "PUT /workspaces/{owner}/{name}/shares/{who} (with all)": Case(
        "/workspaces/owner/secret/shares/public", {"permission": "read"}, about="secret"
    ),
    "DELETE /workspaces/{owner}/{name}/shares/{who}": Case("/workspaces/owner/secret/shares/rd", about="secret"),
    "POST /requests": Case("/requests", {"workspace": "owner/secret", "permission": "manage"}, about="secret"),
    "POST /requests (described)": Case("/requests", {"workspace": "owner/told", "permission": "manage"}, about="told"),
    "POST /requests/{id}/answer": Case("/requests/{request}/answer", {"yes": True}, about="{request}", absent="4711"),
    # ---------------------------------------------------------------------------------------------- groups, quotas
    "POST /groups": Case("/groups", {"name": "ours"}),
    "PUT /groups/{group}/members/{user}": Case("/groups/team/members/on", {}, about="team"),
    "PUT /groups/{group}/members/{user} (to manage)": Case("/groups/team/members/on", {"manager": True}, about="team"),
    "DELETE /groups/{group}/members/{user}": Case("/groups/team/members/gm", about="team"),
    "DELETE /groups/{group}": Case("/groups/team", about="team"),
    "PUT /quotas": Case("/quotas", {"kind": "workspace", "of": "owner/secret", "soft": 5}, about="secret"),
    "PUT /quotas (on a root)": Case("/quotas", {"kind": "root", "of": "lab3/data", "soft": 5}, about="data"),
    "PUT /quotas (on an unlisted root)": Case("/quotas", {"kind": "root", "of": "lab3/hidden", "soft": 5}, about="hidden"),
    "PUT /quotas (on a person)": Case("/quotas", {"kind": "user", "of": "owner", "soft": 5}),
    "DELETE /quotas/{id}": Case("/quotas/{quota}", about="{quota}", absent="4711"),
}
