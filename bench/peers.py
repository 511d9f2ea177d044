"""What the figures are compared with: the server's own Python admin client, and mc."""

from __future__ import annotations

import os
import subprocess
import time

from minio import MinioAdmin
from minio.credentials.providers import StaticProvider

from deploy.programs import provide
from deploy.running import Minio


def admin(server: Minio) -> MinioAdmin:
    """Return the server's own admin client, as its owner."""
    return MinioAdmin(endpoint=server.host, credentials=StaticProvider(server.user, server.password), secure=False)


def mc_lists(server: Minio, bucket: str) -> tuple[int, float]:
    """List a bucket with ``mc ls -r``; return how many lines it said, and the seconds it took."""
    environment = os.environ | {"MC_HOST_peer": f"http://{server.user}:{server.password}@{server.host}"}
    started = time.perf_counter()
    said = subprocess.run(
        [provide("mc"), "ls", "-r", f"peer/{bucket}"], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return said.stdout.count("\n"), time.perf_counter() - started
