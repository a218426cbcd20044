"""/v1/tunesmith/data: new files made of uploaded ones; those stay as they are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from fastapi import APIRouter

from tunesmith.access import Caller
from tunesmith.api import files
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.data import find_file, work
from tunesmith.api.services import Services, Svc
from tunesmith.data import changed
from tunesmith.data.repair import REPAIRS
from tunesmith.errors import BadRequest
from tunesmith.store.repo.files import FileRow
from tunesmith.wire.data import Fixed, FixRequest, Parted, SplitRequest
from tunesmith.wire.files import FileObject

router = APIRouter(prefix="/v1/tunesmith/data", route_class=JsonRoute)


@router.post("/fix")
def fix_file(body: FixRequest, svc: Svc, caller: CallerDep) -> Fixed:
    """Repairs into a new file, or tells what a repair would change."""
    unknown = sorted(set(body.codes or ()) - REPAIRS.keys())
    if unknown:
        raise BadRequest(
            f"There is no repair of '{unknown[0]}'. There are {', '.join(REPAIRS)}.",
            code="invalid_value",
            param="codes",
        )
    file = find_file(svc, caller.project, body.file)
    codes = None if body.codes is None else tuple(body.codes)
    with _workplace(svc) as directory:
        target = None if body.dry_run else directory / "fixed"
        path = str(svc.blobs.path(file.id))
        request = changed.FixRequest(path, codes, str(target) if target else None)
        found = work(request, file, file.num_bytes, "repair of", "fix")
        new = target and _keep(svc, caller, file, target, "fixed")
    return Fixed.model_validate({"file": file.id, "fixed_file": new, **found})


@router.post("/split")
def split_file(body: SplitRequest, svc: Svc, caller: CallerDep) -> Parted:
    """One file into two, to train on and to validate with; rows that are alike stay together."""
    file = find_file(svc, caller.project, body.file)
    with _workplace(svc) as directory:
        train, valid = directory / "train", directory / "valid"
        path = str(svc.blobs.path(file.id))
        request = changed.SplitRequest(path, body.ratio, body.seed, str(train), str(valid))
        found = work(request, file, file.num_bytes, "split of", "split")
        if not body.dry_run:
            found["training_file"] = _keep(svc, caller, file, train, "train")
            found["validation_file"] = _keep(svc, caller, file, valid, "valid")
    nothing = {"training_file": None, "validation_file": None}
    return Parted.model_validate({"file": file.id, **nothing, **found})


@contextmanager
def _workplace(svc: Services) -> Iterator[Path]:
    """A directory on the disk of the blobs, for as long as the work takes."""
    svc.settings.run_dir.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=svc.settings.run_dir, prefix="data-") as directory:
        yield Path(directory)


def _keep(svc: Services, caller: Caller, source: FileRow, path: Path, part: str) -> FileObject:
    """Stores a new file, called after its source: "train.jsonl" -> "train-fixed.jsonl"."""
    name = PurePath(source.filename)
    with path.open("rb") as content:
        return files.keep(svc, caller, content, f"{name.stem}-{part}.jsonl", source.purpose)
