"""What the launcher asks of a running trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tunesmith.jobdir.files import write_atomic
from tunesmith.jobdir.layout import CONTROL_FILE

Control = Literal["pause", "cancel"]


def read_control(job_dir: Path) -> Control | None:
    """What the launcher asks for; an unknown word counts as nothing."""
    try:
        word = (job_dir / CONTROL_FILE).read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    if word == "pause":
        return "pause"
    return "cancel" if word == "cancel" else None


def write_control(job_dir: Path, word: Control) -> None:
    write_atomic(job_dir / CONTROL_FILE, word.encode())
