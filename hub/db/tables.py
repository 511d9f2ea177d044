"""The hub's tables. SQL is the truth; the search index can be thrown away.

Times are Unix microseconds, ids random 53-bit integers (``protocol.names``). Nothing in here opens storage: passwords and
tokens are hashes, join keys are public halves, minted keys are never written down.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite makes only an INTEGER primary key count by itself; PostgreSQL needs BIGINT.
Serial = BigInteger().with_variant(Integer, "sqlite")


def _id() -> Column[int]:
    return Column("id", BigInteger, primary_key=True, autoincrement=False)


settings = Table(
    "settings",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("value", LargeBinary, nullable=False),
    comment="Few small facts of this hub; the hub's signing key is sealed with WIO_SECRET.",
)

users = Table(
    "users",
    metadata,
    _id(),
    Column("username", String(40), nullable=False, unique=True),
    Column("email", String(254), nullable=False, unique=True, comment="lower case"),
    Column("password", String(200), nullable=False, comment="argon2id"),
    Column("admin", Boolean, nullable=False, default=False),
    Column("disabled_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    Column("hash", LargeBinary, nullable=False, unique=True, comment="SHA-256 of the token"),
    Column("user_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("label", String(80), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

invitations = Table(
    "invitations",
    metadata,
    _id(),
    Column("join_key", LargeBinary, nullable=False, unique=True, comment="public half"),
    Column("owner_id", ForeignKey("users.id"), nullable=False),
    Column("name", String(40)),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("node_id", ForeignKey("nodes.id"), comment="set by the one UPDATE that uses it up"),
    Column("replaces_id", BigInteger, comment="the node whose key is another one once it is used; NULL: it is for a new node"),
)

nodes = Table(
    "nodes",
    metadata,
    _id(),
    Column("name", String(40), nullable=False, unique=True),
    Column("owner_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("key", LargeBinary, nullable=False, unique=True, comment="Ed25519 public key"),
    Column("report", LargeBinary, comment="the last Report, msgpack"),
    Column("health", LargeBinary, comment="the last Health, msgpack"),
    Column("config_revision", BigInteger, nullable=False, default=0),
    Column("joined_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger),
    Column("evicted_at", BigInteger),
    Column(
        "unconfirmed_since", BigInteger, comment="the hub came back from a backup: what it knew before then is not sent yet"
    ),
)

journals = Table(
    "journals",
    metadata,
    Column("node_id", ForeignKey("nodes.id"), primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("running", LargeBinary, nullable=False),
    comment="How far each node's journal is in the catalogue: moves in the transaction that writes the rows.",
)

roots = Table(
    "roots",
    metadata,
    _id(),
    Column("node_id", ForeignKey("nodes.id"), nullable=False),
    Column("name", String(40), nullable=False),
    Column("kind", String(20), nullable=False, comment="protocol.api.RootKind"),
    Column("bucket", String(63), nullable=False),
    Column("prefix", Text, nullable=False),
    Column("layout", String(10), nullable=False),
    Column("level", String(10), nullable=False),
    Column("pace", Integer, nullable=False, default=0),
    Column("quiet", String(20), nullable=False, server_default="", comment="hours in which no scan runs, 08:00-18:00"),
    Column("drifted_at", BigInteger, comment="when digests last differed from the node's; NULL once they agree again"),
    Column("created_at", BigInteger, nullable=False),
    Column("retired_at", BigInteger),
    Column("objects", BigInteger, nullable=False, default=0),
    Column("bytes", BigInteger, nullable=False, default=0),
    Column("digest", BigInteger, nullable=False, default=0, comment="protocol.digest, kept with the entries"),
    Column("scan", LargeBinary, comment="the last Progress, msgpack"),
    Column("generation", BigInteger, nullable=False, default=0, comment="the journal's, whose scan last confirmed every entry"),
    UniqueConstraint("node_id", "name"),
)

workspaces = Table(
    "workspaces",
    metadata,
    _id(),
    Column("root_id", ForeignKey("roots.id"), nullable=False, index=True),
    Column("owner_id", ForeignKey("users.id"), nullable=False),
    Column("name", String(40), nullable=False),
    Column("prefix", Text, nullable=False, comment="in the root's own space, ends in /"),
    Column("description", Text, nullable=False, default=""),
    Column("created_at", BigInteger, nullable=False),
    Column("archived_at", BigInteger),
    Column("objects", BigInteger, nullable=False, default=0),
    Column("bytes", BigInteger, nullable=False, default=0),
    UniqueConstraint("owner_id", "name"),
    UniqueConstraint("root_id", "prefix"),
)

grants = Table(
    "grants",
    metadata,
    _id(),
    Column("workspace_id", ForeignKey("workspaces.id"), nullable=False),
    Column("subject_kind", String(10), nullable=False, comment="person, group, everyone"),
    Column("subject_id", BigInteger, nullable=False, comment="0 for everyone"),
    Column("permission", String(10), nullable=False),
    Column("expires_at", BigInteger),
    Column("by_id", ForeignKey("users.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("workspace_id", "subject_kind", "subject_id"),
    Index("ix_grants_subject", "subject_kind", "subject_id"),
    comment="What is given now; history is in audit. An owner's own access needs no row.",
)

grant_sets = Table(
    "grant_sets",
    metadata,
    Column("node_id", ForeignKey("nodes.id"), primary_key=True),
    Column("subject_kind", String(10), primary_key=True),
    Column("subject_id", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False, comment="the signed set, msgpack"),
    Column("signature", LargeBinary, nullable=False),
    Column("content", LargeBinary, nullable=False, comment="grants.content_hash"),
    Column("lease_end", BigInteger, nullable=False, default=0, comment="of the signed set, Unix seconds"),
    Column("stale", Boolean, nullable=False, default=False, comment="compile again before the next mint"),
    Column("applied_epoch", BigInteger, nullable=False, default=0),
    Column("applied_at", BigInteger),
    Column("refused", Text, comment="why the agent refused this epoch"),
    Column("keys_until", BigInteger, nullable=False, default=0, comment="no key of this subject lives longer than this"),
    Index("ix_grant_sets_subject", "subject_kind", "subject_id"),
    comment="Desired state: what each node is to allow each subject.",
)

links = Table(
    "links",
    metadata,
    _id(),
    Column("node_id", ForeignKey("nodes.id"), nullable=False),
    Column("workspace_id", BigInteger, nullable=False, index=True),
    Column("by_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("key", Text, nullable=False, comment="in the workspace"),
    Column("put", Boolean, nullable=False, default=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    comment="Presigned links: each is a subject of its own on its node. Neither address nor signature is here.",
)

receipts = Table(
    "receipts",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("node_id", ForeignKey("nodes.id"), nullable=False),
    Column("workspace_id", BigInteger, nullable=False, index=True),
    Column("epoch", BigInteger, nullable=False),
    Column("subject_kind", String(10), nullable=False),
    Column("subject_id", BigInteger, nullable=False),
    Column("state", String(10), nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False, comment="grants.Receipt, JSON"),
    Index("ix_receipts_pending", "node_id", "subject_kind", "subject_id", "state"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("actor_id", BigInteger, nullable=False, index=True, comment="0 for the hub itself"),
    Column("action", String(40), nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", Text, nullable=False, comment="JSON"),
    Column("node_id", BigInteger),
    Column("workspace_id", BigInteger, index=True),
    Column("chain", LargeBinary, nullable=False, server_default="", comment="SHA-256 over the line before's and this line"),
    comment="Append-only.",
)

entries = Table(
    "entries",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("root_id", BigInteger, nullable=False),
    Column("key", Text(collation="C").with_variant(Text(collation="BINARY"), "sqlite"), nullable=False),
    Column("workspace_id", BigInteger, nullable=False, comment="0: in no workspace"),
    Column("size", BigInteger, nullable=False),
    Column("mtime", BigInteger, nullable=False, comment="Unix nanoseconds, as the storage says"),
    Column("etag", Text, nullable=False),
    Column("actor_id", BigInteger, nullable=False, default=0),
    Column("revision", BigInteger, nullable=False, comment="the hub's own, rising: what the search index has not seen"),
    Column("gone", Boolean, nullable=False, default=False, comment="tombstone, until the next completed reconcile"),
    Column("generation", BigInteger, nullable=False, default=0, comment="the journal's, that last spoke of this key"),
    CheckConstraint("size >= 0", name="size"),
    Index("uq_entries_root_key", "root_id", "key", unique=True),
    Index("ix_entries_revision", "revision"),
    Index("ix_entries_workspace", "workspace_id", "key"),
    Index("ix_entries_gone", "root_id", sqlite_where=text("gone"), postgresql_where=text("gone")),
    comment="The catalogue: one row per key. Revision order is the outbox of the search index.",
)

fields = Table(
    "fields",
    metadata,
    Column("root_id", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text(collation="C").with_variant(Text(collation="BINARY"), "sqlite"), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("mtime", BigInteger, nullable=False),
    Column("etag", Text, nullable=False),
    Column("body", LargeBinary, nullable=False, comment="protocol.fields, packed"),
    Column("problem", Boolean, nullable=False, comment="whether it could not be read, or not as a whole"),
    Index("ix_fields_problem", "root_id", "key", sqlite_where=text("problem"), postgresql_where=text("problem")),
    comment="What was read out of objects; belongs to the entry with the same size, mtime and etag, and goes with it.",
)

groups = Table(
    "groups",
    metadata,
    _id(),
    Column("name", String(40), nullable=False, unique=True),
    Column("description", Text, nullable=False, default=""),
    Column("owner_id", ForeignKey("users.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", ForeignKey("groups.id"), primary_key=True),
    Column("user_id", ForeignKey("users.id"), primary_key=True, autoincrement=False),
    Column("manager", Boolean, nullable=False, default=False, comment="may change who is in it; the owner always may"),
    Column("since", BigInteger, nullable=False),
    Index("ix_group_members_user", "user_id"),
)

root_roles = Table(
    "root_roles",
    metadata,
    Column("root_id", ForeignKey("roots.id"), primary_key=True),
    Column("role", String(10), primary_key=True, comment="create: may make workspaces; manage: may change the root"),
    Column("subject_kind", String(10), primary_key=True, comment="person, group, everyone"),
    Column("subject_id", BigInteger, primary_key=True, autoincrement=False, comment="0 for everyone"),
    comment="Beside the node's owner, who may do everything with their roots.",
)

left_places = Table(
    "left_places",
    metadata,
    Column("root_id", ForeignKey("roots.id"), primary_key=True),
    Column("prefix", Text, primary_key=True, comment="in the root's own space, ends in /"),
    Column("owner_id", BigInteger, nullable=False),
    Column("left_at", BigInteger, nullable=False),
    comment="Where workspaces lay that are no more: their files are still there, and they are their last owner's.",
)

access_requests = Table(
    "access_requests",
    metadata,
    _id(),
    Column("workspace_id", BigInteger, nullable=False, index=True),
    Column("user_id", ForeignKey("users.id"), nullable=False, index=True),
    Column("permission", String(10), nullable=False),
    Column("message", Text, nullable=False, default=""),
    Column("created_at", BigInteger, nullable=False),
    Column("answered_at", BigInteger),
    Column("granted", Boolean, comment="the answer; NULL while there is none"),
    Column("answered_by", BigInteger),
)

quotas = Table(
    "quotas",
    metadata,
    _id(),
    Column("kind", String(10), nullable=False, comment="user, user-root, root, workspace"),
    Column("user_id", BigInteger, nullable=False, default=0, comment="0 where the kind has none"),
    Column("root_id", BigInteger, nullable=False, default=0),
    Column("workspace_id", BigInteger, nullable=False, default=0),
    Column("soft", BigInteger, comment="bytes; beyond it people are warned"),
    Column("hard", BigInteger, comment="bytes; beyond it nobody can add to what is counted"),
    Column("by_id", ForeignKey("users.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("over_since", BigInteger, comment="since when the hard limit is enforced"),
    Column("warned_at", BigInteger),
    UniqueConstraint("kind", "user_id", "root_id", "workspace_id", name="uq_quotas_of"),
    Index(
        "ix_quotas_strained",
        "user_id",
        "root_id",
        "workspace_id",
        sqlite_where=text("over_since IS NOT NULL OR warned_at IS NOT NULL"),
        postgresql_where=text("over_since IS NOT NULL OR warned_at IS NOT NULL"),
    ),
)

past_grants = Table(
    "past_grants",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("workspace_id", BigInteger, nullable=False, index=True),
    Column("subject_kind", String(10), nullable=False),
    Column("subject_id", BigInteger, nullable=False),
    Column("permission", String(10), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=False),
    comment="Grants that ended, and past ownership (permission: owner): who could reach what, when.",
)

past_members = Table(
    "past_members",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("group_id", BigInteger, nullable=False, index=True),
    Column("user_id", BigInteger, nullable=False, index=True),
    Column("since", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=False),
)

accesses = Table(
    "accesses",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("root_id", BigInteger, nullable=False),
    Column("workspace_id", BigInteger, nullable=False),
    Column("key", Text(collation="C").with_variant(Text(collation="BINARY"), "sqlite"), nullable=False),
    Column("actor_id", BigInteger, nullable=False),
    Column("operation", String(80), nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Index("ix_accesses_workspace", "workspace_id", "last_at"),
    Index("ix_accesses_root_key", "root_id", "key", "last_at"),
    comment="Who read or wrote what, as the storage server itself reported it, compacted by the minute; kept for a time.",
)

# "access" counts the transactions that change who may read what, so that answers about it can be kept until it moves;
# "audit" counts the lines with a chain, and whoever moves it is the only one that appends until the transaction ends.
counters = Table(
    "counters",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", BigInteger, nullable=False),
    comment="revision: taken with one UPDATE inside the writing transaction, so commits come in revision order.",
)
