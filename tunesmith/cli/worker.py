"""`tunesmith worker`: one more worker on a data directory."""

from __future__ import annotations

from tunesmith.cli.options import DataDir, existing_settings


def work(data: DataDir = None) -> None:
    """Run one more worker: it claims jobs and trains them, beside those of `tunesmith serve`."""
    from tunesmith.jobs.__main__ import main

    main(existing_settings(data))
