"""Groups, roles on roots, requests for access, quotas, history of grants, attributed access, a chain over the audit trail.

Revision: 0002. Written 2026-11-24.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accesses",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("root_id", sa.BigInteger(), nullable=False),
        sa.Column("workspace_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(collation="C").with_variant(sa.Text(collation="BINARY"), "sqlite"), nullable=False),
        sa.Column("actor_id", sa.BigInteger(), nullable=False),
        sa.Column("operation", sa.String(length=80), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accesses"),
        comment="Who read or wrote what, as the storage server itself reported it, compacted by the minute; kept for a time.",
    )
    op.create_index("ix_accesses_root_key", "accesses", ["root_id", "key", "last_at"], unique=False)
    op.create_index("ix_accesses_workspace", "accesses", ["workspace_id", "last_at"], unique=False)
    op.create_table(
        "past_grants",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("workspace_id", sa.BigInteger(), nullable=False),
        sa.Column("subject_kind", sa.String(length=10), nullable=False),
        sa.Column("subject_id", sa.BigInteger(), nullable=False),
        sa.Column("permission", sa.String(length=10), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_past_grants"),
        comment="Grants that ended, and past ownership (permission: owner): who could reach what, when.",
    )
    op.create_index("ix_past_grants_workspace_id", "past_grants", ["workspace_id"], unique=False)
    op.create_table(
        "past_members",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_past_members"),
    )
    op.create_index("ix_past_members_group_id", "past_members", ["group_id"], unique=False)
    op.create_index("ix_past_members_user_id", "past_members", ["user_id"], unique=False)
    op.create_table(
        "access_requests",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("workspace_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("permission", sa.String(length=10), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("answered_at", sa.BigInteger(), nullable=True),
        sa.Column("granted", sa.Boolean(), nullable=True, comment="the answer; NULL while there is none"),
        sa.Column("answered_by", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_access_requests_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_access_requests"),
    )
    op.create_table(
        "left_places",
        sa.Column("root_id", sa.BigInteger(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False, comment="in the root's own space, ends in /"),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("left_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["root_id"], ["roots.id"], name="fk_left_places_root_id_roots"),
        sa.PrimaryKeyConstraint("root_id", "prefix", name="pk_left_places"),
        comment="Where workspaces lay that are no more: their files are still there, and they are their last owner's.",
    )
    op.create_index("ix_access_requests_user_id", "access_requests", ["user_id"], unique=False)
    op.create_index("ix_access_requests_workspace_id", "access_requests", ["workspace_id"], unique=False)
    op.create_table(
        "groups",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_groups_owner_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
        sa.UniqueConstraint("name", name="uq_groups_name"),
    )
    op.create_table(
        "quotas",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False, comment="user, user-root, root, workspace"),
        sa.Column("user_id", sa.BigInteger(), nullable=False, comment="0 where the kind has none"),
        sa.Column("root_id", sa.BigInteger(), nullable=False),
        sa.Column("workspace_id", sa.BigInteger(), nullable=False),
        sa.Column("soft", sa.BigInteger(), nullable=True, comment="bytes; beyond it people are warned"),
        sa.Column("hard", sa.BigInteger(), nullable=True, comment="bytes; beyond it nobody can add to what is counted"),
        sa.Column("by_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("over_since", sa.BigInteger(), nullable=True, comment="since when the hard limit is enforced"),
        sa.Column("warned_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["by_id"], ["users.id"], name="fk_quotas_by_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_quotas"),
        sa.UniqueConstraint("kind", "user_id", "root_id", "workspace_id", name="uq_quotas_of"),
    )
    strained = sa.text("over_since IS NOT NULL OR warned_at IS NOT NULL")
    op.create_index(
        "ix_quotas_strained", "quotas", ["user_id", "root_id", "workspace_id"], sqlite_where=strained, postgresql_where=strained
    )
    op.create_table(
        "group_members",
        sa.Column("group_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("manager", sa.Boolean(), nullable=False, comment="may change who is in it; the owner always may"),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name="fk_group_members_group_id_groups"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_group_members_user_id_users"),
        sa.PrimaryKeyConstraint("group_id", "user_id", name="pk_group_members"),
    )
    op.create_index("ix_group_members_user", "group_members", ["user_id"], unique=False)
    op.create_table(
        "root_roles",
        sa.Column("root_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "role", sa.String(length=10), nullable=False, comment="create: may make workspaces; manage: may change the root"
        ),
        sa.Column("subject_kind", sa.String(length=10), nullable=False, comment="person, group, everyone"),
        sa.Column("subject_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="0 for everyone"),
        sa.ForeignKeyConstraint(["root_id"], ["roots.id"], name="fk_root_roles_root_id_roots"),
        sa.PrimaryKeyConstraint("root_id", "role", "subject_kind", "subject_id", name="pk_root_roles"),
        comment="Beside the node's owner, who may do everything with their roots.",
    )
    # Until now everybody could make workspaces in managed roots.
    op.execute(
        "INSERT INTO root_roles (root_id, role, subject_kind, subject_id) "
        "SELECT id, 'create', 'everyone', 0 FROM roots WHERE kind IN ('public', 'private')"
    )
    op.add_column(
        "nodes",
        sa.Column(
            "unconfirmed_since",
            sa.BigInteger(),
            nullable=True,
            comment="the hub came back from a backup: what it knew before then is not sent yet",
        ),
    )
    op.add_column(
        "audit",
        sa.Column(
            "chain", sa.LargeBinary(), server_default="", nullable=False, comment="SHA-256 over the line before's and this line"
        ),
    )
    # SQLite would keep the column's default as text, which is no chain. Lines from before have none.
    audit = sa.table("audit", sa.column("chain", sa.LargeBinary))
    op.execute(audit.update().values(chain=b""))
    counters = sa.table("counters", sa.column("name", sa.String), sa.column("value", sa.BigInteger))
    op.bulk_insert(counters, [{"name": "audit", "value": 0}])
