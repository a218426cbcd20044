"""Names of tuned models: ft:{base}:{organisation}:{suffix or empty}:{8 characters}.

A checkpoint on the way has eight characters of its own and ends with ":ckpt-step-{N}".
"""

from __future__ import annotations

import re

from tunesmith.ids import Rng, new_model_suffix

MAX_SUFFIX = 64


def clean_suffix(suffix: str | None) -> str:
    """The user's suffix as it appears in names: lower case, letters, digits, dot, _ and -."""
    return re.sub(r"[^a-z0-9._-]", "-", (suffix or "").lower())[:MAX_SUFFIX]


def model_name(label: str, organization: str, suffix: str | None, rng: Rng) -> str:
    """A fresh name; two colons in a row where there is no suffix."""
    return f"ft:{label}:{organization}:{clean_suffix(suffix)}:{new_model_suffix(rng)}"
