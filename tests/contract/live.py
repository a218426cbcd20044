"""The API in this process, the engine in its own, with a tiny random model to answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.service import Service, engine_of, make_service
from tests.tiny_base import write_tiny_base
from tunesmith.bases import describe
from tunesmith.ids import SystemClock
from tunesmith.store.repo import bases


@contextmanager
def live_service(root: Path) -> Iterator[Service]:
    """The model's names are "tiny" and "gpt-3.5-turbo"."""
    service = make_service(root / "data")
    with service.db.write() as conn:
        bases.insert(conn, describe(write_tiny_base(root / "tiny"), "tiny", SystemClock()))
        bases.set_alias(conn, "gpt-3.5-turbo", "tiny", now=0)
    with engine_of(root / "data"):
        yield service
