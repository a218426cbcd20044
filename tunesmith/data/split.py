"""One file into two, to train on and to validate with.

Rows that are alike (one prompt, or nearly one text) stay on one side, because a validation row that
was trained on measures nothing. Where answers are labels, each label is split in the same ratio.
Rows are copied byte for byte and keep their order.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from tunesmith.data.checks.duplicates import Groups, join_near
from tunesmith.data.checks.sketches import sketch
from tunesmith.data.checks.view import normal, view
from tunesmith.data.kinds import detect, row_kind
from tunesmith.data.raw import RawRow, read_raw
from tunesmith.data.stats import label_of, labels
from tunesmith.errors import TunesmithError

SKETCHED_AT_ONCE = 1024


class SplitError(TunesmithError):
    """A file that cannot be split as asked."""


@dataclass(frozen=True)
class Split:
    num_train: int
    num_valid: int
    num_groups: int
    """Groups of rows that are alike."""
    num_grouped: int
    """Rows in them."""
    labels: int
    """Labels that were split evenly; 0 = answers are no labels."""


@dataclass
class _Survey:
    """What the first pass keeps of each row: a few numbers, no text."""

    offsets: array[int] = field(default_factory=lambda: array("Q"))
    labels: list[str | None] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    firsts: array[int] = field(default_factory=lambda: array("Q"))
    """The first row with the same prompt."""
    groups: Groups = field(default_factory=lambda: Groups(0))


def split(path: Path, train: Path, valid: Path, *, ratio: float = 0.1, seed: int = 0) -> Split:
    """Writes both files. `ratio` is the share of rows to validate with, above 0 and below 1.

    The same file, ratio and seed give the same split. Raises SplitError.
    """
    if not 0 < ratio < 1:
        raise SplitError(f"A ratio of {ratio:g} leaves one side empty; give one between 0 and 1.")
    survey = _survey(path)
    chosen = _choose(survey, ratio, seed)
    if not chosen or len(chosen) == len(survey.offsets):
        raise SplitError(
            f"{len(survey.offsets)} rows cannot be split at {ratio:g}: one side would be empty, "
            "because rows that are alike stay together. Give another ratio or more rows."
        )
    _write(path, train, valid, chosen)
    grouped, num_groups = survey.groups.members()
    return Split(
        len(survey.offsets) - len(chosen),
        len(chosen),
        num_groups,
        len(grouped),
        len(labels(survey.counts, len(survey.offsets)) or ()),
    )


def _survey(path: Path) -> _Survey:
    survey = _Survey()
    kind = detect(path).kind
    prompts: dict[bytes, int] = {}
    sketches, texts = [], []
    for place, row in enumerate(_good_rows(path)):
        survey.offsets.append(row.offset)
        label = label_of(row.value)
        survey.labels.append(label)
        if label is not None:
            survey.counts[label] += 1
        prompt, text = _texts(row, kind)
        key = blake2b(prompt.encode("utf-8", "replace"), digest_size=16).digest()
        survey.firsts.append(prompts.setdefault(key, place))
        texts.append(text)
        if len(texts) == SKETCHED_AT_ONCE:
            sketches.append(sketch(texts))
            texts = []
    sketches.append(sketch(texts))
    survey.groups = Groups(len(survey.firsts))
    rows = np.arange(len(survey.firsts))
    survey.groups.join(rows, np.array(survey.firsts, np.int64))
    join_near(survey.groups, np.concatenate(sketches), rows)
    return survey


def _good_rows(path: Path) -> Iterator[RawRow]:
    for row in read_raw(path):
        if row.problem is not None:
            raise SplitError(
                f"{path.name}, line {row.line}: {row.problem.message.rstrip('.')}. Mend it first: "
                f"`tunesmith data fix {path} -o OUT`."
            )
        yield row


def _texts(row: RawRow, kind: str) -> tuple[str, str]:
    """(the prompt, prompt and answer) of a row, as duplicates are compared."""
    seen = view(row.value, row_kind(row.value) if kind == "unknown" else kind)
    if seen is None or not (seen.prompt or seen.answer):
        whole = row.raw.decode("utf-8", "replace")
        return whole, whole
    prompt = normal(seen.prompt)
    return prompt, f"{prompt}\n{normal(seen.answer)}"


def _choose(survey: _Survey, ratio: float, seed: int) -> set[int]:
    """The rows to validate with: whole groups, drawn label by label."""
    num_rows = len(survey.offsets)
    are_labels = labels(survey.counts, num_rows) is not None
    strata: dict[str | None, dict[int, list[int]]] = {}
    for row, group in enumerate(survey.groups.firsts(np.arange(num_rows)).tolist()):
        label = survey.labels[group] if are_labels else None
        strata.setdefault(label, {}).setdefault(group, []).append(row)
    generator = random.Random(seed)
    chosen: set[int] = set()
    wanted = 0.0
    for label in sorted(strata, key=str):
        groups = list(strata[label].values())
        generator.shuffle(groups)
        # What rounding took from one label the next gives.
        wanted += ratio * sum(map(len, groups))
        # Large groups last: one of them could fill the side by itself.
        for rows in sorted(groups, key=len):
            if len(chosen) + len(rows) / 2 > wanted:
                break
            chosen.update(rows)
    return chosen


def _write(path: Path, train: Path, valid: Path, chosen: set[int]) -> None:
    parts = [each.with_name(each.name + ".part") for each in (train, valid)]
    with parts[0].open("wb") as first, parts[1].open("wb") as second:
        for place, row in enumerate(read_raw(path)):
            (second if place in chosen else first).write(row.raw + b"\n")
    for part, target in zip(parts, (train, valid), strict=True):
        part.replace(target)
