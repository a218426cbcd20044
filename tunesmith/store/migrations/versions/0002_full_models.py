"""Models whose weights were all trained: a base of their own, and no adapter."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("bases", sa.Column("sha256", sa.String))
    with op.batch_alter_table("models") as models:
        models.alter_column("adapter_sha256", existing_type=sa.String, nullable=True)
    # Nothing read it: the model that a checkpoint is served as knows its weights.
    op.drop_column("checkpoints", "adapter_sha256")
