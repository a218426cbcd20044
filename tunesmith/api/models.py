"""/v1/models: bases, their other names, tuned models and kept checkpoints; all answer by name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from fastapi import APIRouter, BackgroundTasks

from tunesmith.api.caller import CallerDep
from tunesmith.api.names import unknown_model
from tunesmith.api.services import Services, Svc
from tunesmith.bases import BaseInfo
from tunesmith.errors import EngineError, Forbidden
from tunesmith.store.repo import audit_log, base_grants, bases, models
from tunesmith.store.repo.models import ModelRow
from tunesmith.wire.lists import Listing
from tunesmith.wire.models import Model, ModelDeleted

router = APIRouter(prefix="/v1/models")

# Names hold ":" and "/"; the server has undone any percent-encoding by the time we see them.
NAME = "/{name:path}"


def shape_base(base: BaseInfo, name: str) -> Model:
    return Model(id=name, created=base.created_at, owned_by="system")


def shape_tuned(row: ModelRow) -> Model:
    return Model(id=row.name, created=row.created_at, owned_by=row.owned_by)


@router.get("")
def list_models(svc: Svc, caller: CallerDep) -> Listing[Model]:
    with svc.db.read() as conn:
        closed = base_grants.closed(conn, caller.project)
        known = {base.name: base for base in bases.list_all(conn) if base.name not in closed}
        aliases = bases.list_aliases(conn)
        tuned = models.of_project(conn, caller.project)
    names = {name: name for name in known} | aliases
    shown = [shape_base(known[base], name) for name, base in names.items() if base in known]
    return Listing(data=[*shown, *map(shape_tuned, tuned)])


@router.get(NAME)
def retrieve_model(name: str, svc: Svc, caller: CallerDep) -> Model:
    with svc.db.read() as conn:
        tuned = models.get(conn, caller.project, name)
        base = base_grants.resolve(conn, caller.project, name)
    if tuned is not None:
        return shape_tuned(tuned)
    if base is None:
        raise unknown_model(name)
    return shape_base(base, name)


@router.delete(NAME)
def delete_model(name: str, svc: Svc, caller: CallerDep, tasks: BackgroundTasks) -> ModelDeleted:
    """Forgets a tuned model at once; its files go when no other name needs them."""
    with svc.db.write() as conn:
        row = models.get(conn, caller.project, name)
        deleted = models.delete(conn, caller.project, name)
        if deleted:
            now = int(svc.clock.now())
            audit_log.record(conn, svc.rng, now, caller, "model.deleted", name)
        unused = bases.drop_unused(conn)
        in_use = models.adapters_in_use(conn)
        base = None if deleted else base_grants.resolve(conn, caller.project, name)
    for published in unused:
        tasks.add_task(unload, svc, path=published.path)
    if row is not None and row.adapter_sha256 not in (None, *in_use):
        tasks.add_task(unload, svc, adapter=row.adapter_sha256)
    if base is not None:
        raise Forbidden(
            f"`{name}` is a base model and cannot be deleted here; "
            "`tunesmith base remove` takes it off the server.",
            param="model",
        )
    if not deleted:
        raise unknown_model(name)
    return ModelDeleted(id=name)


async def unload(svc: Services, *, path: Path | None = None, adapter: str | None = None) -> None:
    """What nobody can ask for any more leaves memory at once, and with it the disk."""
    with suppress(EngineError):
        await svc.engine.unload(base_path=path, adapter=adapter)
