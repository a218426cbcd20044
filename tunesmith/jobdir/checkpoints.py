"""Checkpoints: written whole or not at all, believed only when every byte is as it was written.

    checkpoints/step-00000012/
        adapter_model.safetensors  adapter_config.json      the adapter, as it is served, or
        model/                                              the whole model, as it is served
        masters.safetensors                                 its weights in fp32, if that is more
        optimizer.safetensors                               AdamW's moments
        state.json                                          where the job stands
        MANIFEST.json                                       size and sha256 of the files above

The files go into a hidden directory first; each is fsynced, the manifest last; then the directory
is renamed. Hidden directories are leftovers. Nothing is pickled.

Of a whole model only the newest checkpoint keeps what a resume needs, six times the model's size.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.errors import TunesmithError
from tunesmith.jobdir.files import fsync_dir
from tunesmith.jobdir.layout import CHECKPOINTS_DIR, SCHEMA
from tunesmith.jobdir.outcome import CheckpointEntry
from tunesmith.jobdir.records import RecordError, from_json, to_json
from tunesmith.model.adapter_files import WEIGHTS
from tunesmith.model.listing import LISTING

OPTIMIZER_FILE = "optimizer.safetensors"
MASTERS_FILE = "masters.safetensors"
MODEL_DIR = "model"
STATE_FILE = "state.json"
MANIFEST_FILE = "MANIFEST.json"
PREFIX = "step-"
# Waits between attempts to write onto a full disk, seconds.
DISK_WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class CheckpointError(TunesmithError):
    """A checkpoint is incomplete or not what was written."""


@dataclass(frozen=True)
class Standing:
    """Where a job stood when a checkpoint was made."""

    step: int
    epoch: int | None = None
    """Set where an epoch ends here."""
    servable: bool = False
    """Whether the checkpoint is offered to the user; a safety copy is not."""
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FileDigest:
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    job_id: str
    fence: int
    step: int
    files: dict[str, FileDigest]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Checkpoint:
    """One that was verified."""

    path: Path
    manifest: Manifest
    standing: Standing
    resumable: bool = True
    """False: what a resume needs was taken away; the model in it is whole."""

    def entry(self, job_dir: Path) -> CheckpointEntry:
        listing = self.manifest.files.get(f"{MODEL_DIR}/{LISTING}")
        where = self.path / MODEL_DIR if listing else self.path
        return CheckpointEntry(
            step=self.standing.step,
            epoch=self.standing.epoch,
            path=where.relative_to(job_dir),
            sha256=(listing or self.manifest.files[WEIGHTS]).sha256,
            metrics=self.standing.metrics,
            form="model" if listing else "adapter",
        )


class Checkpoints:
    """Those of one job, kept by the trainer with the given fence."""

    def __init__(self, job_dir: Path, job_id: str, fence: int) -> None:
        self._job_dir = job_dir
        self._job_id = job_id
        self._fence = fence
        self.directory = job_dir / CHECKPOINTS_DIR
        if not self.directory.exists():
            self.directory.mkdir(exist_ok=True)
            fsync_dir(job_dir)

    def save(self, standing: Standing, write: Callable[[Path], object]) -> Checkpoint:
        """Writes a checkpoint durably; one of the same step is replaced.

        `write` puts weights and moments into the directory that it is given. A full disk is waited
        for a little; raises OSError in the end.
        """
        for wait_s in DISK_WAITS_S:
            try:
                return self._save(standing, write)
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
            time.sleep(wait_s)
        return self._save(standing, write)

    def _save(self, standing: Standing, write: Callable[[Path], object]) -> Checkpoint:
        draft = self.directory / f".tmp-{self._fence}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        write(draft)
        (draft / STATE_FILE).write_bytes(to_json(standing))
        paths = sorted(path for path in draft.rglob("*") if path.is_file())
        names = [str(path.relative_to(draft)) for path in paths]
        digests = {name: _sealed(draft / name) for name in names}
        manifest = Manifest(self._job_id, self._fence, standing.step, digests)
        (draft / MANIFEST_FILE).write_bytes(to_json(manifest))
        _sealed(draft / MANIFEST_FILE)
        for directory in {path.parent for path in paths} | {draft}:
            fsync_dir(directory)
        path = self.directory / f"{PREFIX}{standing.step:08d}"
        if path.exists():
            self.discard(path)
        draft.rename(path)
        fsync_dir(self.directory)
        return Checkpoint(path, manifest, standing)

    def verified(self) -> tuple[list[Checkpoint], list[tuple[Path, str]]]:
        """The good ones by step, and the others with what is wrong with them."""
        good: list[Checkpoint] = []
        bad: list[tuple[Path, str]] = []
        for path in sorted(self.directory.glob(f"{PREFIX}*")):
            try:
                good.append(verify(path, self._job_id))
            except CheckpointError as error:
                bad.append((path, error.message))
        return good, bad

    def prune(self, keep: int) -> None:
        """Keeps the last `keep` epoch ends and the newest of all; removes the rest.

        Of whole models the newest alone can be resumed from then.
        """
        paths = sorted(self.directory.glob(f"{PREFIX}*"))
        epoch_ends = [path for path in paths if _ends_epoch(path)]
        kept = {*epoch_ends[-keep:], *paths[-1:]} if keep else set(paths[-1:])
        for path in paths:
            if path not in kept:
                self.discard(path)
            elif path != paths[-1] and (path / MODEL_DIR).is_dir():
                for name in (OPTIMIZER_FILE, MASTERS_FILE):
                    (path / name).unlink(missing_ok=True)

    def discard(self, path: Path) -> None:
        """Removes a checkpoint; after a crash half-way it does not look like one any more."""
        doomed = path.with_name(f".old-{path.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        path.rename(doomed)
        shutil.rmtree(doomed)

    def sweep(self) -> None:
        """Removes what a killed trainer left half written or half removed."""
        for leftover in self.directory.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)


def verify(path: Path, job_id: str) -> Checkpoint:
    """Reads every byte. Raises CheckpointError that names the first thing that is wrong."""
    try:
        manifest = from_json(Manifest, (path / MANIFEST_FILE).read_bytes())
        standing = from_json(Standing, (path / STATE_FILE).read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{Path(error.filename).name} is missing") from error
    except RecordError as error:
        raise CheckpointError(error.message) from error
    if manifest.job_id != job_id:
        raise CheckpointError(f"it belongs to job {manifest.job_id}")
    is_model = f"{MODEL_DIR}/{LISTING}" in manifest.files
    resumable = True
    for name, digest in manifest.files.items():
        try:
            found = _digest(path / name)
        except FileNotFoundError as error:
            if is_model and name in (OPTIMIZER_FILE, MASTERS_FILE):
                resumable = False
                continue
            raise CheckpointError(f"{name} is missing") from error
        if found != digest:
            raise CheckpointError(f"{name} is not what was written (sha256 or size differ)")
    return Checkpoint(path, manifest, standing, resumable)


def _ends_epoch(path: Path) -> bool:
    try:
        return from_json(Standing, (path / STATE_FILE).read_bytes()).epoch is not None
    except (FileNotFoundError, RecordError):
        return False


def _digest(path: Path) -> FileDigest:
    with path.open("rb") as file:
        return FileDigest(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _sealed(path: Path) -> FileDigest:
    """The digest of a file that is on the disk by then."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
        return FileDigest(path.stat().st_size, digest)
