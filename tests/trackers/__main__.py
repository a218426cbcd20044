"""python -m tests.trackers: jobs followed by the real wandb, MLflow and TensorBoard.

They and MLflow's server go into an environment of their own (.trackers), made on the first run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".trackers"
PACKAGES = ("wandb>=0.19,<1", "mlflow>=2.20,<4", "tensorboardX>=2.6,<3", "tensorboard>=2.18")


def main() -> int:
    python = HOME / "bin" / "python"
    if not (HOME / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", HOME], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        (HOME / "ready").touch()
    environment = {**os.environ, "TRACKERS_PYTHON": str(python)}
    command = [sys.executable, "-m", "pytest", "tests/trackers/real.py", *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
