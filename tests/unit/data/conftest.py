from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.families import FAMILIES, write_family
from tunesmith.bases import embedded_directory
from tunesmith.data.render import Renderer

Rendering = tuple[Path, Renderer]


@pytest.fixture(scope="session")
def rendering(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Rendering]:
    """rendering(family) -> (model directory, its renderer); "ours" is the embedded base."""
    made: dict[str, Rendering] = {}

    def get(name: str) -> Rendering:
        if name not in made:
            directory = (
                write_family(name, tmp_path_factory.mktemp(name))
                if name in FAMILIES
                else embedded_directory()
            )
            made[name] = (directory, Renderer.load(directory))
        return made[name]

    return get
