"""Fields read out of objects; quiet hours and drift of roots.

Revision: 0003. Written 2026-11-25.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "fields",
        sa.Column("root_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(collation="C").with_variant(sa.Text(collation="BINARY"), "sqlite"), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="protocol.fields, packed"),
        sa.Column("problem", sa.Boolean(), nullable=False, comment="whether it could not be read, or not as a whole"),
        sa.PrimaryKeyConstraint("root_id", "key", name="pk_fields"),
        comment="What was read out of objects; belongs to the entry with the same size, mtime and etag, and goes with it.",
    )
    op.create_index(
        "ix_fields_problem",
        "fields",
        ["root_id", "key"],
        unique=False,
        sqlite_where=sa.text("problem"),
        postgresql_where=sa.text("problem"),
    )
    with op.batch_alter_table("roots") as batch:
        batch.add_column(
            sa.Column(
                "quiet", sa.String(20), nullable=False, server_default="", comment="hours in which no scan runs, 08:00-18:00"
            )
        )
        batch.add_column(
            sa.Column(
                "drifted_at", sa.BigInteger(), comment="when digests last differed from the node's; NULL once they agree again"
            )
        )
