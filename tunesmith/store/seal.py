"""Secrets of others that must be had again in clear (a tracker's key): kept encrypted.

AES-256-GCM under a key made of the server's pepper, so a copy of the database alone opens nothing.
The purpose is bound in: a sealed text moved to another row does not open.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tunesmith.errors import TunesmithError

NONCE_BYTES = 12


class SealBroken(TunesmithError):
    """The text was sealed with another pepper, for another purpose, or damaged."""


def seal(pepper: bytes, purpose: str, secret: str) -> str:
    nonce = os.urandom(NONCE_BYTES)
    box = AESGCM(_key(pepper)).encrypt(nonce, secret.encode(), purpose.encode())
    return base64.b64encode(nonce + box).decode()


def unseal(pepper: bytes, purpose: str, sealed: str) -> str:
    """Raises SealBroken."""
    raw = base64.b64decode(sealed)
    try:
        opened = AESGCM(_key(pepper)).decrypt(
            raw[:NONCE_BYTES], raw[NONCE_BYTES:], purpose.encode()
        )
    except InvalidTag:
        raise SealBroken(
            f"The secret kept for {purpose} does not open: it was sealed with another pepper. "
            "Set it again."
        ) from None
    return opened.decode()


def _key(pepper: bytes) -> bytes:
    return hmac.new(pepper, b"tunesmith seal", hashlib.sha256).digest()
