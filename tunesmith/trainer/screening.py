"""The moderation of a job's files: which rows are flagged, and whether these are too many."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tunesmith.config import load_settings
from tunesmith.data.formats import Limits, because_of
from tunesmith.errors import DataError, JobError, ModerationError
from tunesmith.jobdir.flags import FlaggedRow
from tunesmith.jobdir.layout import FLAGS_FILE
from tunesmith.jobdir.outcome import Screened
from tunesmith.jobdir.records import to_json
from tunesmith.jobdir.spec import FileRef, Moderation, Param, Spec
from tunesmith.moderation.choice import moderator
from tunesmith.moderation.screening import Count, in_order, screen
from tunesmith.moderation.verdict import Moderator

# Of a file; of more flagged rows the first are listed, and all are counted.
MAX_LISTED = 100_000
MAX_NAMED = 20


def screened(spec: Spec, job_dir: Path) -> Screened | None:
    """What the job's moderator says of its files; None where it has none.

    Raises DataError where more rows are flagged than the job may have, and JobError where the
    moderator cannot be asked.
    """
    asked = spec.moderation
    if asked is None:
        return None
    judge = moderator(asked.kind, asked.url, asked.model, load_settings().moderation_key)
    if judge is None:
        return None
    try:
        return _screened(spec, asked, judge, job_dir)
    except ModerationError as error:
        raise JobError(
            f"{error.message} Moderation can also be turned off (TUNESMITH_MODERATION=off). Then "
            "create the job again.",
            code="moderation_unavailable",
        ) from error


def _screened(spec: Spec, asked: Moderation, judge: Moderator, job_dir: Path) -> Screened:
    limits = None if spec.max_line_bytes is None else Limits(spec.max_line_bytes)
    first: list[FlaggedRow] = []
    counts: dict[Param, Count] = {}
    temporary = job_dir / f".{FLAGS_FILE}.{os.getpid()}.tmp"
    with temporary.open("wb") as listed:
        for param, file in _files(spec):
            count = counts[param] = Count()
            for number, flag in enumerate(screen(file.path, judge, count, limits)):
                row = FlaggedRow(param, flag.row, flag.line, flag.scores)
                if number < MAX_LISTED:
                    listed.write(to_json(row) + b"\n")
                if number < MAX_NAMED:
                    first.append(row)
    temporary.replace(job_dir / FLAGS_FILE)
    for param, count in counts.items():
        if count.num_flagged > asked.fail_share * count.num_rows:
            lines = [row.line for row in first if row.file == param]
            raise too_many(spec.job_id, param, count, lines, asked.fail_share)
    return Screened(
        judge.model,
        sum(count.num_rows for count in counts.values()),
        sum(count.num_flagged for count in counts.values()),
        in_order(sum((count.categories for count in counts.values()), Counter[str]())),
        first,
    )


def _files(spec: Spec) -> Iterator[tuple[Param, FileRef]]:
    yield "training_file", spec.training_file
    if spec.validation_file is not None:
        yield "validation_file", spec.validation_file


def too_many(job_id: str, param: Param, count: Count, lines: list[int], share: float) -> DataError:
    """In the words of the published service, and then what it means here."""
    name = param.replace("_", " ")
    more = " and more" if count.num_flagged > len(lines) else ""
    return DataError(
        f"{because_of(param)} This {name} was blocked because too many examples were flagged by "
        f"our moderation API: {count.num_flagged} of {count.num_rows}, where {share:.0%} may be "
        f"(TUNESMITH_MODERATION_FAIL_SHARE), in the following categories: "
        f"{', '.join(in_order(count.categories))}. Flagged lines: "
        f"{', '.join(map(str, lines))}{more}; /v1/tunesmith/jobs/{job_id}/moderation lists them.",
        code="invalid_training_file",
        param=param,
        line=lines[0],
    )
