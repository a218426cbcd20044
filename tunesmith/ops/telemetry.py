"""What operators see: log lines and metrics.

A log line is one JSON object on stderr: `time`, `level`, `service`, `message`, whatever the call
gave as `extra={"fields": {...}}`, and `error` with a traceback. What looks like an API key, a
signing secret or a password in a URL is cut down before it is written, and so are the secrets of
the settings; prompts and answers are never logged.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

KEY = re.compile(r"\b(sk-|whsec_)[A-Za-z0-9_+/=-]{8,}")
PASSWORD = re.compile(r"(://[^/\s:@]*):[^/\s@]+@")
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


def redact(text: str) -> str:
    """`text` with every key cut down to its last four characters, and without passwords."""
    text = KEY.sub(lambda match: f"{match[1]}...{match[0][-4:]}", text)
    return PASSWORD.sub(r"\1:***@", text)


class JsonFormatter(logging.Formatter):
    def __init__(self, service: str, secrets: Sequence[str] = ()) -> None:
        super().__init__()
        self.service = service
        # As they stand within the JSON of a line.
        self.secrets = [json.dumps(secret)[1:-1] for secret in secrets]

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self.service,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        text = redact(json.dumps(line, default=str))
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def configure_logging(service: str, level: str, secrets: Sequence[str] = ()) -> None:
    """Send this process's log to stderr, a JSON object a line. Replaces what was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service, secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class Metrics:
    """What one API process counts; served by `/metrics`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "tunesmith_http_request_seconds",
            "Time until the answer had been sent, seconds.",
            ("method", "route", "status"),
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "tunesmith_http_requests_in_flight",
            "Requests being answered now.",
            registry=self.registry,
        )
        self.uploaded_bytes = Counter(
            "tunesmith_uploaded_bytes",
            "Bytes of stored uploads.",
            registry=self.registry,
        )
        self.chat_tokens = Counter(
            "tunesmith_chat_tokens",
            "Tokens read and written by models, in chats, completions and embeddings.",
            ("kind",),
            registry=self.registry,
        )
        self.limited = Counter(
            "tunesmith_limited_requests",
            "Requests refused by a limit.",
            ("limit",),
            registry=self.registry,
        )
