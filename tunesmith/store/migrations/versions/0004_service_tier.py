"""Usage is kept apart by service tier; what was used before had none but "default"."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TEXTS = ("project_id", "key_id", "user_id", "model", "base", "kind")
LARGE = (
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "input_nanos",
    "cached_nanos",
    "output_nanos",
    "machine_nanos",
)
SMALL = ("num_requests", "machine_s")


def upgrade() -> None:
    # A primary key does not grow: the table is made anew.
    op.rename_table("usage", "usage_before")
    op.create_table(
        "usage",
        sa.Column("minute", sa.Integer, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.String, primary_key=True) for name in (*TEXTS, "service_tier")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in SMALL),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in LARGE),
    )
    kept = ", ".join(("minute", *TEXTS, *SMALL, *LARGE))
    op.execute(
        f"INSERT INTO usage ({kept}, service_tier) SELECT {kept}, 'default' FROM usage_before"
    )
    op.drop_table("usage_before")
