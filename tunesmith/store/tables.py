"""Every table, once. Queries live in store/repo, one module per noun.

`seq` is the order of creation and what lists page by: clocks may jump, it does not. Times are
whole seconds since 1970 except `lease_until`, which is on the database's own lease clock (db.py).
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _json() -> JSON:
    """A JSON column in which None is the database's NULL."""
    return JSON(none_as_null=True)


files = Table(
    "files",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("filename", Text, nullable=False),
    Column("num_bytes", Integer, nullable=False),
    Column("purpose", String, nullable=False),
    Column("sha256", String, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer),
    # A deleted file stays as a tombstone: live jobs still read it, and lists page past it.
    Column("deleted_at", Integer),
    Column("has_blob", Boolean, nullable=False),
    sqlite_autoincrement=True,
)

jobs = Table(
    "jobs",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("created_at", Integer, nullable=False),
    Column("finished_at", Integer),
    Column("status", String, nullable=False),
    Column("organization_id", String, nullable=False),
    Column("model", String, nullable=False),
    Column("model_label", String, nullable=False),
    Column("base", String, nullable=False),
    Column("start_adapter", String),
    Column("training_file", String, nullable=False),
    Column("validation_file", String),
    Column("method", String, nullable=False),
    Column("requested", _json(), nullable=False),
    Column("hyperparameters", _json(), nullable=False),
    Column("seed", Integer, nullable=False),
    Column("suffix", String),
    Column("metadata", _json()),
    Column("integrations", _json()),
    Column("estimated_finish", Integer),
    Column("trained_tokens", Integer),
    Column("fine_tuned_model", String),
    Column("result_file", String),
    Column("error", _json()),
    # The ledger: who works on it and how far it has come.
    Column("fence", Integer, nullable=False),
    Column("launch_fence", Integer, nullable=False),
    Column("lease_owner", String),
    Column("lease_epoch", String),
    Column("lease_until", Float),
    Column("control", String),
    Column("attempts", Integer, nullable=False),
    Column("crash_step", Integer, nullable=False),
    Column("events_offset", Integer, nullable=False),
    Column("last_step", Integer, nullable=False),
    Column("total_steps", Integer),
    Index("ix_jobs_status", "status"),
    sqlite_autoincrement=True,
)

# The same pairs as jobs.metadata, for filtering lists by them.
job_metadata = Table(
    "job_metadata",
    metadata,
    Column("job_id", String, ForeignKey("jobs.id"), primary_key=True),
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("job_id", String, ForeignKey("jobs.id"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("id", String, nullable=False, unique=True),
    Column("key", String, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("level", String, nullable=False),
    Column("type", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", _json(), nullable=False),
    UniqueConstraint("job_id", "key"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    Column("step", Integer, nullable=False),
    Column("model_name", String, nullable=False),
    Column("metrics", _json(), nullable=False),
    Column("created_at", Integer, nullable=False),
    UniqueConstraint("job_id", "step"),
    sqlite_autoincrement=True,
)

models = Table(
    "models",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("kind", String, nullable=False),
    Column("label", String, nullable=False),
    Column("base", String, nullable=False),
    Column("adapter_sha256", String, index=True),
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("owned_by", String, nullable=False),
    sqlite_autoincrement=True,
)

bases = Table(
    "bases",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("path", Text, nullable=False),
    Column("family", String, nullable=False),
    Column("slow", Boolean, nullable=False),
    Column("context_length", Integer, nullable=False),
    Column("hidden_size", Integer, nullable=False),
    Column("num_parameters", Integer, nullable=False),
    Column("vocab_size", Integer, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("preserves_history", Boolean, nullable=False),
    Column("has_tools", Boolean, nullable=False),
    Column("created_at", Integer, nullable=False),
    # Of a model whose weights were all trained: it is a base that no user registered.
    Column("sha256", String),
    sqlite_autoincrement=True,
)

aliases = Table(
    "aliases",
    metadata,
    Column("name", String, primary_key=True),
    Column("base", String, ForeignKey("bases.name"), nullable=False),
    Column("created_at", Integer, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("name", String, nullable=False),
    Column("digest", String, nullable=False, unique=True),
    Column("prefix", String, nullable=False),
    Column("last4", String, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("revoked_at", Integer),
    Column("last_used_at", Integer),
    sqlite_autoincrement=True,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key", String, primary_key=True),
    Column("body_sha256", String, nullable=False),
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    Column("created_at", Integer, nullable=False),
)
