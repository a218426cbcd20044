"""TensorBoard: event files in the job's directory, for `tensorboard --logdir DATA/jobs`."""

from __future__ import annotations

from typing import Any

from tunesmith.track.protocol import Opening, Point, TrackError


class TensorboardRun:
    def __init__(self, opening: Opening) -> None:
        writer = _library()
        self.run_id = opening.job_id
        self.url = None
        # Of steps that a process before this one wrote too, the later value is shown.
        self._writer: Any = writer(str(opening.directory), flush_secs=1)
        if opening.run_id is None:
            lines = [f"    {key}: {value}" for key, value in opening.parameters.items()]
            self._writer.add_text("job", "\n".join([opening.job_id, "", *lines]))

    def send(self, points: list[Point]) -> None:
        for point in points:
            for name, value in point.figures.items():
                self._writer.add_scalar(name, value, point.step, walltime=point.at)
        self._writer.flush()

    def close(self, status: str | None) -> None:
        if status is not None:
            self._writer.add_text("status", status)
        self._writer.close()


def _library() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise TrackError(
            "the library that writes TensorBoard's files is not installed on this server; its "
            "operator can install it: pip install 'tunesmith[tensorboard]'",
            final=True,
        ) from None
    return SummaryWriter
