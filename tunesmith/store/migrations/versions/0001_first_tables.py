"""Files, jobs with their ledger, events, checkpoints, models, bases, keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _files()
    _jobs()
    _job_events()
    _published()
    _bases()
    _access()


def _files() -> None:
    op.create_table(
        "files",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("num_bytes", sa.Integer, nullable=False),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("sha256", sa.String, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.Integer),
        sa.Column("deleted_at", sa.Integer),
        sa.Column("has_blob", sa.Boolean, nullable=False),
        sqlite_autoincrement=True,
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("finished_at", sa.Integer),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("organization_id", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("model_label", sa.String, nullable=False),
        sa.Column("base", sa.String, nullable=False),
        sa.Column("start_adapter", sa.String),
        sa.Column("training_file", sa.String, nullable=False),
        sa.Column("validation_file", sa.String),
        sa.Column("method", sa.String, nullable=False),
        sa.Column("requested", sa.JSON, nullable=False),
        sa.Column("hyperparameters", sa.JSON, nullable=False),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("suffix", sa.String),
        sa.Column("metadata", sa.JSON),
        sa.Column("integrations", sa.JSON),
        sa.Column("estimated_finish", sa.Integer),
        sa.Column("trained_tokens", sa.Integer),
        sa.Column("fine_tuned_model", sa.String),
        sa.Column("result_file", sa.String),
        sa.Column("error", sa.JSON),
        sa.Column("fence", sa.Integer, nullable=False),
        sa.Column("launch_fence", sa.Integer, nullable=False),
        sa.Column("lease_owner", sa.String),
        sa.Column("lease_epoch", sa.String),
        sa.Column("lease_until", sa.Float),
        sa.Column("control", sa.String),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("crash_step", sa.Integer, nullable=False),
        sa.Column("events_offset", sa.Integer, nullable=False),
        sa.Column("last_step", sa.Integer, nullable=False),
        sa.Column("total_steps", sa.Integer),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_status", "jobs", ["status"])
    op.create_table(
        "job_metadata",
        sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )


def _job_events() -> None:
    op.create_table(
        "events",
        sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("level", sa.String, nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.UniqueConstraint("job_id", "key"),
    )


def _published() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("model_name", sa.String, nullable=False),
        sa.Column("adapter_sha256", sa.String, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.UniqueConstraint("job_id", "step"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "models",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("label", sa.String, nullable=False),
        sa.Column("base", sa.String, nullable=False),
        sa.Column("adapter_sha256", sa.String, nullable=False),
        sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("owned_by", sa.String, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_models_adapter_sha256", "models", ["adapter_sha256"])


def _bases() -> None:
    op.create_table(
        "bases",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("family", sa.String, nullable=False),
        sa.Column("slow", sa.Boolean, nullable=False),
        sa.Column("context_length", sa.Integer, nullable=False),
        sa.Column("hidden_size", sa.Integer, nullable=False),
        sa.Column("num_parameters", sa.Integer, nullable=False),
        sa.Column("vocab_size", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("preserves_history", sa.Boolean, nullable=False),
        sa.Column("has_tools", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "aliases",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("base", sa.String, sa.ForeignKey("bases.name"), nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
    )


def _access() -> None:
    op.create_table(
        "keys",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False, unique=True),
        sa.Column("prefix", sa.String, nullable=False),
        sa.Column("last4", sa.String, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("revoked_at", sa.Integer),
        sa.Column("last_used_at", sa.Integer),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "idempotency",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("body_sha256", sa.String, nullable=False),
        sa.Column("job_id", sa.String, sa.ForeignKey("jobs.id"), nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
    )
