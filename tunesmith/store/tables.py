"""Every table, once. Queries live in store/repo, one module per noun.

`seq` is the order of creation and what lists page by: clocks may jump, it does not. Times are
whole seconds since 1970 except `lease_until`, which is on the database's own lease clock (db.py).
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
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


def _project() -> Column[str]:
    """Whose it is."""
    return Column("project_id", String, ForeignKey("projects.id"), nullable=False, index=True)


projects = Table(
    "projects",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("name", String, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("archived_at", Integer),
    sqlite_autoincrement=True,
)

users = Table(
    "users",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("email", String, nullable=False, unique=True),
    Column("name", String, nullable=False),
    # In the organisation: owner or reader.
    Column("role", String, nullable=False),
    Column("added_at", Integer, nullable=False),
    # Who has left stays: the audit log and keys speak of them.
    Column("deleted_at", Integer),
    sqlite_autoincrement=True,
)

project_users = Table(
    "project_users",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("project_id", String, ForeignKey("projects.id"), nullable=False),
    Column("user_id", String, ForeignKey("users.id"), nullable=False),
    Column("role", String, nullable=False),
    Column("added_at", Integer, nullable=False),
    UniqueConstraint("project_id", "user_id"),
    sqlite_autoincrement=True,
)

service_accounts = Table(
    "service_accounts",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    _project(),
    Column("name", String, nullable=False),
    Column("role", String, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("deleted_at", Integer),
    sqlite_autoincrement=True,
)

# Who changed what. Rows are only ever added.
audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("effective_at", Integer, nullable=False),
    Column("action", String, nullable=False, index=True),
    # NULL: what is not of one project.
    Column("project_id", String, index=True),
    # NULL: the command line, or the server itself.
    Column("key_id", String),
    Column("user_id", String),
    Column("object_id", String, nullable=False),
    Column("detail", _json(), nullable=False),
    sqlite_autoincrement=True,
)

files = Table(
    "files",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    _project(),
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
    _project(),
    # The key that asked for it; NULL for jobs older than this column.
    Column("key_id", String),
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
    _project(),
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

# A base with any row here is reserved to the projects named.
base_grants = Table(
    "base_grants",
    metadata,
    Column("base", String, ForeignKey("bases.name"), primary_key=True),
    Column("project_id", String, ForeignKey("projects.id"), primary_key=True),
    Column("created_at", Integer, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    # NULL: a key of the organisation (admin key).
    Column("project_id", String, ForeignKey("projects.id"), index=True),
    Column("role", String, nullable=False),
    # NULL: all scopes of the role.
    Column("scopes", _json()),
    Column("user_id", String, ForeignKey("users.id")),
    Column("service_account_id", String, ForeignKey("service_accounts.id")),
    Column("name", String, nullable=False),
    Column("digest", String, nullable=False, unique=True),
    Column("prefix", String, nullable=False),
    Column("last4", String, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer),
    Column("revoked_at", Integer),
    Column("last_used_at", Integer),
    sqlite_autoincrement=True,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("project_id", String, ForeignKey("projects.id"), primary_key=True),
    Column("key", String, primary_key=True),
    Column("body_sha256", String, nullable=False),
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    Column("created_at", Integer, nullable=False),
)

# NULL: as the settings say.
rate_limits = Table(
    "rate_limits",
    metadata,
    Column("project_id", String, ForeignKey("projects.id"), primary_key=True),
    Column("base", String, primary_key=True),
    Column("requests_per_minute", Integer),
    Column("requests_per_day", Integer),
    Column("tokens_per_minute", Integer),
    Column("jobs_per_day", Integer),
)

# Of a project or a key.
spend_limits = Table(
    "spend_limits",
    metadata,
    Column("owner", String, primary_key=True),
    Column("nanos_per_month", BigInteger, nullable=False),
)

# Sums by the minute; money in nano-dollars, at the prices of that time. "" stands for none.
usage = Table(
    "usage",
    metadata,
    Column("minute", Integer, primary_key=True, autoincrement=False),
    Column("project_id", String, primary_key=True),
    Column("key_id", String, primary_key=True),
    Column("user_id", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("base", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("service_tier", String, primary_key=True),
    Column("num_requests", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("machine_s", Integer, nullable=False),
    Column("input_nanos", BigInteger, nullable=False),
    Column("cached_nanos", BigInteger, nullable=False),
    Column("output_nanos", BigInteger, nullable=False),
    Column("machine_nanos", BigInteger, nullable=False),
)

# Sums of usage by month ("2026-11") and project or key: what spend limits go by.
spending = Table(
    "spending",
    metadata,
    Column("owner", String, primary_key=True),
    Column("month", String, primary_key=True),
    Column("nanos", BigInteger, nullable=False),
)

job_costs = Table(
    "job_costs",
    metadata,
    Column("job_id", String, ForeignKey("jobs.id"), primary_key=True),
    Column("estimated_tokens", BigInteger),
    Column("estimated_nanos", BigInteger),
    Column("expected_machine_nanos", BigInteger, nullable=False),
    Column("trained_tokens", BigInteger, nullable=False),
    Column("machine_s", Integer, nullable=False),
    Column("training_nanos", BigInteger, nullable=False),
    Column("machine_nanos", BigInteger, nullable=False),
)

# Where a project's events are sent. Secrets are derived, not kept: see jobs/signing.py.
webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    _project(),
    Column("name", String, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", _json(), nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("updated_at", Integer, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("old_until", Integer),
    sqlite_autoincrement=True,
)

# What is to be told to the outside; a row is written with the event that it tells of.
outbox = Table(
    "outbox",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    _project(),
    Column("event_id", String, nullable=False),
    Column("event_type", String, nullable=False),
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    Column("channel", String, nullable=False),
    Column("target", String, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("since", Integer, nullable=False),
    # Fractions matter here: short pauses are of less than a second in tests.
    Column("due_at", Float, nullable=False),
    Column("state", String, nullable=False),
    Column("num_attempts", Integer, nullable=False),
    Column("finished_at", Integer),
    Column("lease_owner", String),
    Column("lease_epoch", String),
    Column("lease_until", Float),
    UniqueConstraint("event_id", "channel", "target"),
    Index("ix_outbox_state", "state", "due_at"),
    sqlite_autoincrement=True,
)

outbox_attempts = Table(
    "outbox_attempts",
    metadata,
    Column("delivery_id", String, ForeignKey("outbox.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Integer, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("status_code", Integer),
    Column("error", Text),
)

# Whom a project wants told by e-mail, and its trackers' keys, sealed.
notices = Table(
    "notices",
    metadata,
    Column("project_id", String, ForeignKey("projects.id"), primary_key=True),
    Column("emails", _json(), nullable=False),
    Column("wandb_key", Text),
)

trackers = Table(
    "trackers",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String, nullable=False),
    Column("config", _json(), nullable=False),
    Column("state", String, nullable=False),
    Column("run_id", String),
    Column("sent_seq", Integer, nullable=False),
    Column("num_failures", Integer, nullable=False),
    Column("due_at", Float, nullable=False),
    Column("lease_owner", String),
    Column("lease_epoch", String),
    Column("lease_until", Float),
    UniqueConstraint("job_id", "number"),
    Index("ix_trackers_state", "state", "due_at"),
    sqlite_autoincrement=True,
)
