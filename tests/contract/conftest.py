from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.live import live_service
from tests.service import Service, make_service


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return make_service(tmp_path / "data", max_file_bytes=200_000, max_body_bytes=100_000)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with live_service(tmp_path_factory.mktemp("live")) as service:
        yield service
