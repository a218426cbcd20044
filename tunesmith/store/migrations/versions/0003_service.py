"""A service for many: projects own what there is; people, keys with roles, and what they did.

What was there belongs to the default project, and keys stay owners of it.
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

DEFAULT_PROJECT = "proj_default"


def upgrade() -> None:
    _people()
    _project_of_everything()
    _keys()
    _idempotency()
    _base_grants()
    _audit_log()
    _limits_and_usage()
    _word()


def _people() -> None:
    projects = op.create_table(
        "projects",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("archived_at", sa.Integer),
        sqlite_autoincrement=True,
    )
    now = int(time.time())
    op.bulk_insert(
        projects, [{"id": DEFAULT_PROJECT, "name": "Default project", "created_at": now}]
    )
    op.create_table(
        "users",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("email", sa.String, nullable=False, unique=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("added_at", sa.Integer, nullable=False),
        sa.Column("deleted_at", sa.Integer),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "project_users",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("user_id", sa.String, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("added_at", sa.Integer, nullable=False),
        sa.UniqueConstraint("project_id", "user_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "service_accounts",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("deleted_at", sa.Integer),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_service_accounts_project_id", "service_accounts", ["project_id"])


def _project_of_everything() -> None:
    for table in ("files", "jobs", "models"):
        # The default is for the rows that are there. Nothing that writes relies on it.
        _refer(table, "project_id", "projects", f"NOT NULL DEFAULT '{DEFAULT_PROJECT}'")
        op.create_index(f"ix_{table}_project_id", table, ["project_id"])
    op.add_column("jobs", sa.Column("key_id", sa.String))


def _refer(table: str, column: str, target: str, options: str = "") -> None:
    """Adds a column that refers to another table; alembic would copy the table for it."""
    op.execute(
        f"ALTER TABLE {table} ADD COLUMN {column} VARCHAR {options} "
        f"CONSTRAINT fk_{table}_{column} REFERENCES {target} (id)"
    )


def _keys() -> None:
    for name in ("project", "user", "service_account"):
        _refer("keys", f"{name}_id", f"{name}s")
    op.add_column("keys", sa.Column("role", sa.String, nullable=False, server_default="owner"))
    op.add_column("keys", sa.Column("scopes", sa.JSON))
    op.add_column("keys", sa.Column("expires_at", sa.Integer))
    op.execute(f"UPDATE keys SET project_id = '{DEFAULT_PROJECT}'")
    op.create_index("ix_keys_project_id", "keys", ["project_id"])


def _idempotency() -> None:
    op.rename_table("idempotency", "idempotency_before")
    op.create_table(
        "idempotency",
        sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("body_sha256", sa.String, nullable=False),
        sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
    )
    op.execute(
        f"INSERT INTO idempotency SELECT '{DEFAULT_PROJECT}', key, body_sha256, job_id, created_at"
        " FROM idempotency_before"
    )
    op.drop_table("idempotency_before")


def _base_grants() -> None:
    op.create_table(
        "base_grants",
        sa.Column("base", sa.String, sa.ForeignKey("bases.name"), primary_key=True),
        sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), primary_key=True),
        sa.Column("created_at", sa.Integer, nullable=False),
    )


def _audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("effective_at", sa.Integer, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("project_id", sa.String),
        sa.Column("key_id", sa.String),
        sa.Column("user_id", sa.String),
        sa.Column("object_id", sa.String, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_log_action", "audit_log", ["action"])
    op.create_index("ix_audit_log_project_id", "audit_log", ["project_id"])


def _limits_and_usage() -> None:
    op.create_table(
        "rate_limits",
        sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), primary_key=True),
        sa.Column("base", sa.String, primary_key=True),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("requests_per_day", sa.Integer),
        sa.Column("tokens_per_minute", sa.Integer),
        sa.Column("jobs_per_day", sa.Integer),
    )
    op.create_table(
        "spend_limits",
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("nanos_per_month", sa.BigInteger, nullable=False),
    )
    texts = ("project_id", "key_id", "user_id", "model", "base", "kind")
    sums = {"num_requests": sa.Integer, "input_tokens": sa.BigInteger}
    sums |= {"cached_tokens": sa.BigInteger, "output_tokens": sa.BigInteger}
    sums |= {"machine_s": sa.Integer, "input_nanos": sa.BigInteger}
    sums |= dict.fromkeys(("cached_nanos", "output_nanos", "machine_nanos"), sa.BigInteger)
    op.create_table(
        "usage",
        sa.Column("minute", sa.Integer, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.String, primary_key=True) for name in texts),
        *(sa.Column(name, kind, nullable=False) for name, kind in sums.items()),
    )
    op.create_table(
        "spending",
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("month", sa.String, primary_key=True),
        sa.Column("nanos", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "job_costs",
        sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("estimated_tokens", sa.BigInteger),
        sa.Column("estimated_nanos", sa.BigInteger),
        sa.Column("expected_machine_nanos", sa.BigInteger, nullable=False),
        sa.Column("trained_tokens", sa.BigInteger, nullable=False),
        sa.Column("machine_s", sa.Integer, nullable=False),
        sa.Column("training_nanos", sa.BigInteger, nullable=False),
        sa.Column("machine_nanos", sa.BigInteger, nullable=False),
    )


def _word() -> None:
    """Webhooks, e-mail and trackers."""
    _webhook_endpoints()
    _outbox()
    op.create_table(
        "notices",
        sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), primary_key=True),
        sa.Column("emails", sa.JSON, nullable=False),
        sa.Column("wandb_key", sa.Text),
    )
    op.create_table(
        "trackers",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("run_id", sa.String),
        sa.Column("sent_seq", sa.Integer, nullable=False),
        sa.Column("num_failures", sa.Integer, nullable=False),
        sa.Column("due_at", sa.Float, nullable=False),
        sa.Column("lease_owner", sa.String),
        sa.Column("lease_epoch", sa.String),
        sa.Column("lease_until", sa.Float),
        sa.UniqueConstraint("job_id", "number"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_trackers_state", "trackers", ["state", "due_at"])


def _webhook_endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("event_types", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("updated_at", sa.Integer, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("old_until", sa.Integer),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_webhook_endpoints_project_id", "webhook_endpoints", ["project_id"])


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("project_id", sa.String, sa.ForeignKey("projects.id"), nullable=False),
        sa.Column("event_id", sa.String, nullable=False),
        sa.Column("event_type", sa.String, nullable=False),
        sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("target", sa.String, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("since", sa.Integer, nullable=False),
        sa.Column("due_at", sa.Float, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("num_attempts", sa.Integer, nullable=False),
        sa.Column("finished_at", sa.Integer),
        sa.Column("lease_owner", sa.String),
        sa.Column("lease_epoch", sa.String),
        sa.Column("lease_until", sa.Float),
        sa.UniqueConstraint("event_id", "channel", "target"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outbox_project_id", "outbox", ["project_id"])
    op.create_index("ix_outbox_state", "outbox", ["state", "due_at"])
    op.create_table(
        "outbox_attempts",
        sa.Column("delivery_id", sa.String, sa.ForeignKey("outbox.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("at", sa.Integer, nullable=False),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("status_code", sa.Integer),
        sa.Column("error", sa.Text),
    )
