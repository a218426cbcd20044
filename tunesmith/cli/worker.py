"""`tunesmith worker`: one more worker on a data directory."""

from __future__ import annotations

import os
import sys

from tunesmith.cli.options import DataDir, existing_settings, require_torch


def work(data: DataDir = None) -> None:
    """Run one more worker: it claims jobs and trains them, beside the one of `tunesmith serve`."""
    require_torch()
    found = existing_settings(data)
    from tunesmith.cli.serve import child_environment

    # The worker is a program of its own; this process becomes it, and gets its signals.
    os.execve(sys.executable, [sys.executable, "-m", "tunesmith.jobs"], child_environment(found))
