from __future__ import annotations

from pathlib import Path

import pytest

from tests.service import Service, make_service


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return make_service(tmp_path / "data", max_file_bytes=200_000, max_body_bytes=100_000)
