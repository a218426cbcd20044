"""Webhook signatures after Standard Webhooks: the official client's `webhooks.unwrap` takes them.

A signing secret is derived from the server's pepper, the endpoint and the number of its rotations,
and so is nowhere kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"
# How long a replaced secret still signs, if that was asked for.
OVERLAP_S = 24 * 3600


def secret_of(pepper: bytes, endpoint_id: str, generation: int) -> str:
    """The secret to show once: "whsec_" and 256 bits in Base64."""
    key = hmac.new(pepper, f"webhook {endpoint_id} {generation}".encode(), hashlib.sha256).digest()
    return SECRET_PREFIX + base64.b64encode(key).decode()


def hint_of(secret: str) -> str:
    """A secret as it may be shown again."""
    return f"{SECRET_PREFIX}...{secret[-4:]}"


def headers(secrets: Sequence[str], event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """What goes with a delivery: signed with each secret that is valid now."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    return {
        "content-type": "application/json",
        "user-agent": "tunesmith",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_signature(secret, signed) for secret in secrets),
    }


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def event_id_of(object_id: str, event_type: str) -> str:
    """The id of what happened: the same one however often it is told, since it happens once."""
    digest = hashlib.sha256(f"{object_id} {event_type}".encode()).hexdigest()
    return f"evt_{digest[:32]}"


def event_body(event_id: str, event_type: str, object_id: str, created_at: int) -> bytes:
    """The published body: no more than the id of what it is about."""
    return json.dumps(
        {
            "id": event_id,
            "object": "event",
            "created_at": created_at,
            "type": event_type,
            "data": {"id": object_id},
        },
        separators=(",", ":"),
    ).encode()
