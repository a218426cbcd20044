"""/v1/tunesmith/demo: the data that comes with the package, as files of this server."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter

from tunesmith import shipped
from tunesmith.access import Caller
from tunesmith.api import files
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import Services, Svc
from tunesmith.store.repo import files as repo
from tunesmith.wire.demo import Demo
from tunesmith.wire.files import FileObject

router = APIRouter(prefix="/v1/tunesmith/demo", route_class=JsonRoute)

PURPOSE = "fine-tune"


@router.post("")
def prepare_demo(svc: Svc, caller: CallerDep) -> Demo:
    """Stores the two files, unless they are here, and says which job to create with them."""
    train = _stored(svc, caller, shipped.TRAINING_FILE)
    held_out = _stored(svc, caller, shipped.HELD_OUT_FILE)
    return Demo(
        training_file=train,
        validation_file=held_out,
        job={
            "model": shipped.BASE,
            "training_file": train.id,
            "validation_file": held_out.id,
            "suffix": shipped.SUFFIX,
            "seed": shipped.SEED,
            "method": {
                "type": "supervised",
                "supervised": {"hyperparameters": shipped.HYPERPARAMETERS},
            },
        },
    )


def _stored(svc: Services, caller: Caller, path: Path) -> FileObject:
    digest = sha256(path.read_bytes()).hexdigest()
    with svc.db.read() as conn:
        known = repo.page(conn, caller.project, purpose=PURPOSE).rows
    for row in known:
        if (row.sha256, row.filename) == (digest, path.name):
            return files.shape(row)
    with path.open("rb") as content:
        return files.keep(svc, caller, content, path.name, PURPOSE)
