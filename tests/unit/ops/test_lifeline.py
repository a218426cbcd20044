from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LIFELINE = [sys.executable, "-m", "tunesmith.ops.lifeline"]


def test_the_module_runs_with_its_own_arguments(tmp_path: Path) -> None:
    (tmp_path / "shown.py").write_text("import sys; print(__name__, sys.argv[1:])")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [*LIFELINE, str(os.getpid()), "shown", "--fd", "3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "__main__ ['--fd', '3']\n"


def test_nothing_runs_for_a_parent_that_has_gone() -> None:
    done = subprocess.run([*LIFELINE, "1", "this"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
