"""The first tables.

Revision: 0001. Written 2026-11-24.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor_id", sa.BigInteger(), nullable=False, comment="0 for the hub itself"),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("node_id", sa.BigInteger(), nullable=True),
        sa.Column("workspace_id", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        comment="Append-only.",
    )
    op.create_index("ix_audit_actor_id", "audit", ["actor_id"], unique=False)
    op.create_index("ix_audit_workspace_id", "audit", ["workspace_id"], unique=False)
    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_counters"),
        comment="revision: taken with one UPDATE inside the writing transaction, so commits come in revision order.",
    )
    op.create_table(
        "entries",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("root_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(collation="C").with_variant(sa.Text(collation="BINARY"), "sqlite"), nullable=False),
        sa.Column("workspace_id", sa.BigInteger(), nullable=False, comment="0: in no workspace"),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime", sa.BigInteger(), nullable=False, comment="Unix nanoseconds, as the storage says"),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "revision", sa.BigInteger(), nullable=False, comment="the hub's own, rising: what the search index has not seen"
        ),
        sa.Column("gone", sa.Boolean(), nullable=False, comment="tombstone, until the next completed reconcile"),
        sa.Column("generation", sa.BigInteger(), nullable=False, comment="the journal's, that last spoke of this key"),
        sa.CheckConstraint("size >= 0", name="ck_entries_size"),
        sa.PrimaryKeyConstraint("id", name="pk_entries"),
        comment="The catalogue: one row per key. Revision order is the outbox of the search index.",
    )
    op.create_index(
        "ix_entries_gone", "entries", ["root_id"], unique=False, sqlite_where=sa.text("gone"), postgresql_where=sa.text("gone")
    )
    op.create_index("ix_entries_revision", "entries", ["revision"], unique=False)
    op.create_index("ix_entries_workspace", "entries", ["workspace_id", "key"], unique=False)
    op.create_index("uq_entries_root_key", "entries", ["root_id", "key"], unique=True)
    op.create_table(
        "settings",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_settings"),
        comment="Few small facts of this hub; the hub's signing key is sealed with WIO_SECRET.",
    )
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("username", sa.String(length=40), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False, comment="lower case"),
        sa.Column("password", sa.String(length=200), nullable=False, comment="argon2id"),
        sa.Column("admin", sa.Boolean(), nullable=False),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
        sa.UniqueConstraint("username", name="uq_users_username"),
    )
    op.create_table(
        "nodes",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False, comment="Ed25519 public key"),
        sa.Column("report", sa.LargeBinary(), nullable=True, comment="the last Report, msgpack"),
        sa.Column("health", sa.LargeBinary(), nullable=True, comment="the last Health, msgpack"),
        sa.Column("config_revision", sa.BigInteger(), nullable=False),
        sa.Column("joined_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=True),
        sa.Column("evicted_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_nodes_owner_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_nodes"),
        sa.UniqueConstraint("key", name="uq_nodes_key"),
        sa.UniqueConstraint("name", name="uq_nodes_name"),
    )
    op.create_index("ix_nodes_owner_id", "nodes", ["owner_id"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of the token"),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("label", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_tokens_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("hash", name="uq_tokens_hash"),
    )
    op.create_index("ix_tokens_user_id", "tokens", ["user_id"], unique=False)
    op.create_table(
        "grant_sets",
        sa.Column("node_id", sa.BigInteger(), nullable=False),
        sa.Column("subject_kind", sa.String(length=10), nullable=False),
        sa.Column("subject_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="the signed set, msgpack"),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False, comment="grants.content_hash"),
        sa.Column("lease_end", sa.BigInteger(), nullable=False, comment="of the signed set, Unix seconds"),
        sa.Column("stale", sa.Boolean(), nullable=False, comment="compile again before the next mint"),
        sa.Column("applied_epoch", sa.BigInteger(), nullable=False),
        sa.Column("applied_at", sa.BigInteger(), nullable=True),
        sa.Column("refused", sa.Text(), nullable=True, comment="why the agent refused this epoch"),
        sa.Column("keys_until", sa.BigInteger(), nullable=False, comment="no key of this subject lives longer than this"),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_grant_sets_node_id_nodes"),
        sa.PrimaryKeyConstraint("node_id", "subject_kind", "subject_id", name="pk_grant_sets"),
        comment="Desired state: what each node is to allow each subject.",
    )
    op.create_index("ix_grant_sets_subject", "grant_sets", ["subject_kind", "subject_id"], unique=False)
    op.create_table(
        "invitations",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("join_key", sa.LargeBinary(), nullable=False, comment="public half"),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("node_id", sa.BigInteger(), nullable=True, comment="set by the one UPDATE that uses it up"),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_invitations_node_id_nodes"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_invitations_owner_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
        sa.UniqueConstraint("join_key", name="uq_invitations_join_key"),
    )
    op.create_table(
        "journals",
        sa.Column("node_id", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("running", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_journals_node_id_nodes"),
        sa.PrimaryKeyConstraint("node_id", name="pk_journals"),
        comment="How far each node's journal is in the catalogue: moves in the transaction that writes the rows.",
    )
    op.create_table(
        "receipts",
        sa.Column("id", sa.String(length=20), nullable=False),
        sa.Column("node_id", sa.BigInteger(), nullable=False),
        sa.Column("workspace_id", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("subject_kind", sa.String(length=10), nullable=False),
        sa.Column("subject_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="grants.Receipt, JSON"),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_receipts_node_id_nodes"),
        sa.PrimaryKeyConstraint("id", name="pk_receipts"),
    )
    op.create_index("ix_receipts_pending", "receipts", ["node_id", "subject_kind", "subject_id", "state"], unique=False)
    op.create_index("ix_receipts_workspace_id", "receipts", ["workspace_id"], unique=False)
    op.create_table(
        "roots",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("node_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False, comment="protocol.api.RootKind"),
        sa.Column("bucket", sa.String(length=63), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("layout", sa.String(length=10), nullable=False),
        sa.Column("level", sa.String(length=10), nullable=False),
        sa.Column("pace", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.BigInteger(), nullable=False, comment="protocol.digest, kept with the entries"),
        sa.Column("scan", sa.LargeBinary(), nullable=True, comment="the last Progress, msgpack"),
        sa.Column(
            "generation", sa.BigInteger(), nullable=False, comment="the journal's, whose scan last confirmed every entry"
        ),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], name="fk_roots_node_id_nodes"),
        sa.PrimaryKeyConstraint("id", name="pk_roots"),
        sa.UniqueConstraint("node_id", "name", name="uq_roots_node_id"),
    )
    op.create_table(
        "workspaces",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root_id", sa.BigInteger(), nullable=False),
        sa.Column("owner_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False, comment="in the root's own space, ends in /"),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("archived_at", sa.BigInteger(), nullable=True),
        sa.Column("objects", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_workspaces_owner_id_users"),
        sa.ForeignKeyConstraint(["root_id"], ["roots.id"], name="fk_workspaces_root_id_roots"),
        sa.PrimaryKeyConstraint("id", name="pk_workspaces"),
        sa.UniqueConstraint("owner_id", "name", name="uq_workspaces_owner_id"),
        sa.UniqueConstraint("root_id", "prefix", name="uq_workspaces_root_id"),
    )
    op.create_index("ix_workspaces_root_id", "workspaces", ["root_id"], unique=False)
    op.create_table(
        "grants",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("workspace_id", sa.BigInteger(), nullable=False),
        sa.Column("subject_kind", sa.String(length=10), nullable=False, comment="person, group, everyone"),
        sa.Column("subject_id", sa.BigInteger(), nullable=False, comment="0 for everyone"),
        sa.Column("permission", sa.String(length=10), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("by_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["by_id"], ["users.id"], name="fk_grants_by_id_users"),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name="fk_grants_workspace_id_workspaces"),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
        sa.UniqueConstraint("workspace_id", "subject_kind", "subject_id", name="uq_grants_workspace_id"),
        comment="What is given now; history is in audit. An owner's own access needs no row.",
    )
    op.create_index("ix_grants_subject", "grants", ["subject_kind", "subject_id"], unique=False)
    counters = sa.table("counters", sa.column("name", sa.String), sa.column("value", sa.BigInteger))
    op.bulk_insert(counters, [{"name": "revision", "value": 0}, {"name": "access", "value": 0}])
