"""Weights & Biases through its own library: names and tags as the hosted service gives them."""

from __future__ import annotations

import os
from typing import Any

from tunesmith.track.protocol import Opening, Point, TrackError

INIT_LIMIT_S = 60.0


class WandbRun:
    def __init__(self, opening: Opening) -> None:
        if opening.secret is None and not opening.offline:
            raise TrackError(
                "Weights & Biases needs an API key: set it for the project "
                "(POST /v1/tunesmith/notifications, wandb_api_key) or for the server "
                "(TUNESMITH_WANDB_API_KEY), or let it write files only "
                "(TUNESMITH_WANDB_OFFLINE=true)",
                final=True,
            )
        self._wandb = wandb = _library()
        if opening.secret is not None:
            os.environ["WANDB_API_KEY"] = opening.secret
        given = opening.config
        settings = {
            "base_url": opening.url,
            "init_timeout": INIT_LIMIT_S,
            # Nothing of this process or machine but the figures.
            "host": "tunesmith",
            "program": "tunesmith",
            "console": "off",
            "disable_code": True,
            "disable_git": True,
            "x_disable_meta": True,
            "x_disable_stats": True,
            "x_save_requirements": False,
        }
        try:
            self._run: Any = wandb.init(
                project=given["project"],
                entity=given.get("entity"),
                name=given.get("name") or opening.job_id,
                id=opening.run_id or opening.job_id,
                resume="allow",
                tags=[*_tags(opening), *(given.get("tags") or [])],
                config=opening.parameters,
                dir=opening.directory,
                mode="offline" if opening.offline else "online",
                settings=wandb.Settings(
                    **{name: value for name, value in settings.items() if value is not None}
                ),
            )
        except (wandb.Error, ValueError, OSError) as error:
            raise TrackError(f"Weights & Biases cannot be reached: {error}") from error
        self.run_id = str(self._run.id)
        self.url = self._run.url
        # A resumed run refuses steps that it has; asking keeps it from warning of each.
        self._next_step = int(self._run.step or 0)

    def send(self, points: list[Point]) -> None:
        for point in points:
            if point.step >= self._next_step:
                self._run.log(point.figures, step=point.step)
                self._next_step = point.step + 1

    def close(self, status: str | None) -> None:
        if status is not None:
            self._run.summary["status"] = status
        self._run.finish(exit_code=0 if status in (None, "succeeded") else 1)


def _tags(opening: Opening) -> list[str]:
    return ["openai/finetune", f"openai/{opening.model}"[:64], f"openai/{opening.job_id}"]


def _library() -> Any:
    try:
        import wandb
    except ImportError:
        raise TrackError(
            "the library of Weights & Biases is not installed on this server; its operator can "
            "install it: pip install 'tunesmith[wandb]'",
            final=True,
        ) from None
    return wandb
