"""Packs the web app into the wheel: builds it where npm's registry can be reached."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent / "web"))
import build


class WebAppHook(BuildHookInterface):  # type: ignore[type-arg]
    def dependencies(self) -> list[str]:
        """Node, for machines that have none."""
        return [] if build.is_current() or build.node_on_path() else [build.NODE_PACKAGE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or build.is_current():
            return
        try:
            build.build()
        except build.BuildError as error:
            # No reason to refuse the API: it runs, and its first page says what is missing.
            self.app.display_warning(f"This wheel has no web app. {error}")
