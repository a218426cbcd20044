"""Damaged files through all data tools: documented errors, linear time, nothing else.

`make fuzz` does the same to a hundred thousand.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.mutations import mutated
from tests.fuzz.surface import Surface
from tunesmith.bases import embedded_directory
from tunesmith.data.render import Renderer

NUM_FILES = 200


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Surface:
    base = embedded_directory()
    return Surface(Renderer.load(base), base, tmp_path_factory.mktemp("work"))


def test_damaged_files(surface: Surface, tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    for seed in range(NUM_FILES):
        path.write_bytes(mutated(seed))
        surface.drive(path, random.Random(seed))


def test_a_file_is_a_function_of_its_seed() -> None:
    assert [mutated(seed) for seed in range(9)] == [mutated(seed) for seed in range(9)]
