"""Tiny models: a second thread would only wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.engine_harness import Harness, running_engine, save_adapter
from tests.tiny_base import write_tiny_base
from tunesmith.serve.protocol import AdapterRef

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    directory = tmp_path_factory.mktemp("adapters")
    return [save_adapter(base, directory / str(seed), seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def engine() -> Iterator[Harness]:
    with running_engine() as harness:
        yield harness
