"""The link that signs in once: `tunesmith serve` prints its secret, the directory keeps a hash."""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path

PREFIX = "link-"
FILE = "link.json"
LIFETIME_S = 24 * 3600


def make(run_dir: Path, key_id: str, now: int) -> str:
    """A new link's secret, for the key `key_id`; the one before it works no more."""
    secret = PREFIX + secrets.token_urlsafe(24)
    kept = {"sha256": _digest(secret), "key_id": key_id, "expires_at": now + LIFETIME_S}
    (run_dir / FILE).write_text(json.dumps(kept))
    return secret


def redeem(run_dir: Path, secret: str, now: int) -> str | None:
    """The key that an unused link stands for. Of several who try at once, one gets it."""
    path = run_dir / FILE
    try:
        kept = json.loads(path.read_text())
        if kept["sha256"] != _digest(secret) or kept["expires_at"] <= now:
            return None
        # Whoever removes the file has used the link.
        path.unlink()
    except FileNotFoundError:
        return None
    return str(kept["key_id"])


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
