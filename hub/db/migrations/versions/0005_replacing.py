"""Invitations that replace a node's key.

Revision: 0005. Written 2026-11-25.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("invitations") as batch:
        batch.add_column(
            sa.Column(
                "replaces_id",
                sa.BigInteger(),
                comment="the node whose key is another one once it is used; NULL: it is for a new node",
            )
        )
