from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_transformers import build

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """saved(kind) -> (directory, the transformers model in fp32); made once a session."""
    made: dict[str, tuple[Path, Any]] = {}

    def get(kind: str) -> tuple[Path, Any]:
        if kind not in made:
            model = build(kind)
            directory = tmp_path_factory.mktemp(kind)
            model.save_pretrained(directory)
            made[kind] = (directory, model)
        return made[kind]

    return get


@pytest.fixture
def ids_BT() -> torch.Tensor:
    return torch.randint(3, 97, (3, 60), generator=torch.Generator().manual_seed(1))
