"""One job as its process sees it: the spec, the files, and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.group.watch import Watch
from tunesmith.group.world import ALONE, World
from tunesmith.jobdir.checkpoints import Checkpoints
from tunesmith.jobdir.journal import Journal
from tunesmith.jobdir.outcome import Failure, Result, Status
from tunesmith.jobdir.spec import Spec


@dataclass
class Progress:
    step: int = 0
    total_steps: int = 0
    trained_tokens: int = 0


@dataclass(frozen=True)
class Job:
    dir: Path
    spec: Spec
    journal: Journal
    watch: Watch
    checkpoints: Checkpoints
    progress: Progress = field(default_factory=Progress)
    world: World = ALONE

    def result(self, status: Status, error: Failure | None = None) -> Result:
        """How the train phase ended, with the checkpoints that can be served.

        The first process alone looks at them: it alone writes the result.
        """
        good = self.checkpoints.verified()[0] if self.world.is_first else []
        return Result(
            fence=self.spec.fence,
            status=status,
            step=self.progress.step,
            total_steps=self.progress.total_steps,
            trained_tokens=self.progress.trained_tokens,
            checkpoints=[each.entry(self.dir) for each in good if each.standing.servable],
            error=error,
        )
