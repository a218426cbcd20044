"""/v1/models through the official client."""

from __future__ import annotations

import openai
import pytest

from tests.service import BASE, ROW, Service
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.store.repo import bases, models
from tunesmith.store.repo.models import ModelRow

TUNED = "ft:gpt-4o-mini:personal::AbCdEfGh"
CHECKPOINT = "ft:org/base:personal:my-suffix:IjKlMnOp:ckpt-step-7"


@pytest.fixture(autouse=True)
def tuned(service: Service) -> None:
    file = service.client.files.create(file=ROW * 12, purpose="fine-tune")
    job = service.client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    with service.db.write() as conn:
        for name, kind in ((TUNED, "tuned"), (CHECKPOINT, "checkpoint")):
            row = ModelRow(name, DEFAULT_PROJECT, kind, BASE, BASE, "0" * 64, job.id, 5, "personal")  # type: ignore[arg-type]
            models.insert(conn, row)


def test_the_list_holds_bases_aliases_tuned_models_and_checkpoints(service: Service) -> None:
    shown = {model.id: model.owned_by for model in service.client.models.list()}
    assert shown == {
        BASE: "system",
        "gpt-4o-mini": "system",
        TUNED: "personal",
        CHECKPOINT: "personal",
    }


@pytest.mark.parametrize("name", [BASE, "gpt-4o-mini", TUNED, CHECKPOINT])
def test_any_name_can_be_looked_up(service: Service, name: str) -> None:
    assert service.client.models.retrieve(name).id == name


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/ft%3Agpt-4o-mini%3Apersonal%3A%3AAbCdEfGh",
        "/v1/models/ft:org%2Fbase:personal:my-suffix:IjKlMnOp:ckpt-step-7",
        "/v1/models/ft:org/base:personal:my-suffix:IjKlMnOp:ckpt-step-7",
    ],
)
def test_names_arrive_in_every_client_s_spelling(service: Service, path: str) -> None:
    assert service.http.get(path).status_code == 200


def test_an_alias_made_while_serving_works_at_once(service: Service) -> None:
    with service.db.write() as conn:
        bases.set_alias(conn, "gpt-3.5-turbo", BASE, now=1)
    assert service.client.models.retrieve("gpt-3.5-turbo").id == "gpt-3.5-turbo"


@pytest.mark.parametrize("name", [TUNED, CHECKPOINT])
def test_a_tuned_model_can_be_deleted_once(service: Service, name: str) -> None:
    deleted = service.client.models.delete(name)
    assert (deleted.id, deleted.object, deleted.deleted) == (name, "model", True)
    for call in (service.client.models.retrieve, service.client.models.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            call(name)
        assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("name", [BASE, "gpt-4o-mini"])
def test_a_base_cannot_be_deleted_here(service: Service, name: str) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="tunesmith base remove"):
        service.client.models.delete(name)
    assert service.client.models.retrieve(name)


def test_a_tuned_model_whose_base_is_gone_can_still_be_deleted(service: Service) -> None:
    with service.db.write() as conn:
        bases.remove(conn, BASE)
    assert service.client.models.retrieve(TUNED).id == TUNED
    assert service.client.models.delete(TUNED).deleted
