from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.cli.background import background_server
from tunesmith.cli.problem import CommandFailed


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    wrong = {"TUNESMITH_TRAIN_SLOTS": "many"}
    server = background_server(tmp_path / "data", wrong)
    with pytest.raises(CommandFailed, match="TUNESMITH_TRAIN_SLOTS"), server:
        pass
