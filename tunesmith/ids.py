"""Identity, time and chance: where ids are minted, the clock is read and dice are thrown.

Everything that needs one of them takes a `Clock` or an `Rng`, so that a test can hold both.
"""

from __future__ import annotations

import secrets
import string
import time
from typing import Protocol

ALPHABET = string.ascii_letters + string.digits
# A byte as one of the 62 characters; those past the last whole round would favour some of them.
_LETTERS = bytes(ord(ALPHABET[byte % len(ALPHABET)]) for byte in range(256))
_UNEVEN = bytes(range(256 - 256 % len(ALPHABET), 256))


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since 1970, UTC."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()


class Rng(Protocol):
    def token(self, num_chars: int) -> str:
        """Random letters and digits."""
        ...

    def below(self, bound: int) -> int:
        """A random integer in [0, bound)."""
        ...


class SystemRng:
    """Chance from the operating system; fit for keys."""

    def token(self, num_chars: int) -> str:
        text = b""
        while len(text) < num_chars:
            text += secrets.token_bytes(num_chars + 8).translate(_LETTERS, _UNEVEN)
        return text[:num_chars].decode("ascii")

    def below(self, bound: int) -> int:
        return secrets.randbelow(bound)


# The prefixes of the public API, separator included (contract: ids are opaque but recognisable).
FILE = "file-"
JOB = "ftjob-"
EVENT = "ftevent-"
CHECKPOINT = "ftckpt_"
CHAT_COMPLETION = "chatcmpl-"
COMPLETION = "cmpl-"
TOOL_CALL = "call_"
REQUEST = "req_"
MODERATION = "modr-"
WEBHOOK_ENDPOINT = "whe_"
EVENT_SENT = "evt_"
PROJECT = "proj_"
USER = "user-"
SERVICE_ACCOUNT = "svc_acct_"
AUDIT_LOG = "audit_log-"
# How a key begins tells what it is for.
KEY = "sk-"
PROJECT_KEY = "sk-proj-"
SERVICE_ACCOUNT_KEY = "sk-svcacct-"
ADMIN_KEY = "sk-admin-"


def new_id(prefix: str, rng: Rng) -> str:
    """A fresh id such as "file-3kT...": the prefix and 24 random characters."""
    return prefix + rng.token(24)


def new_api_key(prefix: str, rng: Rng) -> str:
    """A key of 256 bits: 43 characters of 62 hold 256.02."""
    return prefix + rng.token(43)


def new_model_suffix(rng: Rng) -> str:
    """The eight characters that end a tuned model's name."""
    return rng.token(8)
