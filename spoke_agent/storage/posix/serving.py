"""How the gateway of a directory node is to run: values only, for whoever keeps or reads settings."""

from __future__ import annotations

from typing import Annotated

import msgspec

Number = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 2)]
Mode = Annotated[int, msgspec.Meta(ge=0, le=0o777)]
Text = Annotated[str, msgspec.Meta(max_length=500)]


class Owner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom files belong to that people upload."""

    uid: Number
    gid: Number


class Serving(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the gateway is to run. ``host`` and ``port`` are where it listens; ``certificate`` empty: without TLS."""

    host: Text
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    region: Text = "us-east-1"
    owner: Owner | None = None
    """None: whoever the agent runs as."""
    file_mode: Mode = 0o644
    dir_mode: Mode = 0o755
    certificate: Text = ""
    certificate_key: Text = ""
