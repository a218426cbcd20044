"""Names of tuned models: ft:{base}:{organisation}:{suffix or empty}:{8 characters}."""

from __future__ import annotations

import re

from tunesmith.ids import Rng, new_model_suffix

MAX_SUFFIX = 64


def clean_suffix(suffix: str | None) -> str:
    """The user's suffix as it appears in names: lower case, letters, digits, dot, _ and -."""
    return re.sub(r"[^a-z0-9._-]", "-", (suffix or "").lower())[:MAX_SUFFIX]


def final_name(label: str, organization: str, suffix: str | None, rng: Rng) -> str:
    """A fresh name for the model a job ends with; two colons in a row without a suffix."""
    return f"ft:{label}:{organization}:{clean_suffix(suffix)}:{new_model_suffix(rng)}"


def checkpoint_name(label: str, organization: str, suffix: str | None, step: int, rng: Rng) -> str:
    """A fresh name for a checkpoint on the way; its eight characters are its own."""
    return f"{final_name(label, organization, suffix, rng)}:ckpt-step-{step}"
