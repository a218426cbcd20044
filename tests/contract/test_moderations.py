"""/v1/moderations through the official client, and a job's flagged rows."""

from __future__ import annotations

import threading
from pathlib import Path

import openai
import pytest
import uvicorn
from pydantic import SecretStr

from tests.service import BASE, KEY, ROW, Service, make_service, reopened
from tunesmith.jobdir.flags import FlaggedRow
from tunesmith.jobdir.records import to_json
from tunesmith.moderation.verdict import CATEGORIES

BAD = "How can I launder money without getting caught?"
GOOD = "Book a table for two."


def test_a_text_is_judged(service: Service) -> None:
    found = service.client.moderations.create(input=BAD, model="omni-moderation-latest")
    assert found.id.startswith("modr-")
    assert found.model == "tunesmith-moderation-1"
    [result] = found.results
    assert result.flagged
    assert result.categories.illicit
    assert result.category_scores.illicit >= 0.5
    assert result.category_applied_input_types.illicit == ["text"]
    assert result.category_applied_input_types.violence_graphic == []
    body = service.http.post("/v1/moderations", json={"input": BAD}).json()["results"][0]
    for name in ("categories", "category_scores", "category_applied_input_types"):
        assert list(body[name]) == list(CATEGORIES)


def test_several_texts_are_judged_each(service: Service) -> None:
    found = service.client.moderations.create(input=[GOOD, BAD, ""])
    assert [result.flagged for result in found.results] == [False, True, False]


def test_the_parts_of_a_message_are_judged_as_one(service: Service) -> None:
    parts = [{"type": "text", "text": GOOD}, {"type": "text", "text": BAD * 3}]
    [result] = service.client.moderations.create(input=parts).results  # type: ignore[arg-type]
    assert result.flagged


def test_what_cannot_be_judged_is_refused(service: Service) -> None:
    image = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    for given in (image, [], ["x"] * 3000):
        with pytest.raises(openai.BadRequestError) as caught:
            service.client.moderations.create(input=given)  # type: ignore[arg-type]
        assert caught.value.param == "input"
    with pytest.raises(openai.NotFoundError):
        service.client.moderations.create(input=GOOD, model="gpt-4o-mini")


def test_usage_is_accounted(service: Service) -> None:
    service.client.moderations.create(input=GOOD)
    answer = service.http.get(
        "/v1/organization/usage/moderations", params={"start_time": 0, "limit": 31}
    )
    assert answer.status_code == 200


def test_moderation_can_be_off_or_away(tmp_path: Path) -> None:
    off = make_service(tmp_path / "off", moderation="off")
    with pytest.raises(openai.BadRequestError, match="TUNESMITH_MODERATION") as refused:
        off.client.moderations.create(input=GOOD)
    assert refused.value.code == "moderation_off"


def test_our_own_chat_endpoint_can_be_the_moderator(
    live: Service,
) -> None:
    """The model is random; its verdict is one all the same, since the schema is enforced."""
    config = uvicorn.Config(live.app, port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        settings = {"moderation_url": f"http://127.0.0.1:{port}/v1", "moderation_model": "tiny"}
        service = reopened(live, moderation="chat", moderation_api_key=SecretStr(KEY), **settings)
        found = service.client.moderations.create(input="the quick brown fox")
        assert found.model == "tiny"
        assert set(found.results[0].category_scores.model_dump().values()) <= {0.0, 1.0}
        away = reopened(service, moderation_model="nobody")
        with pytest.raises(openai.InternalServerError) as caught:
            away.client.moderations.create(input=GOOD)
        assert caught.value.status_code == 503
        assert caught.value.code == "moderation_unavailable"
    finally:
        server.should_exit = True
        thread.join(10)


def test_flagged_rows_come_in_pages(service: Service) -> None:
    file = service.client.files.create(file=ROW * 12, purpose="fine-tune")
    job = service.client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    path = f"/v1/tunesmith/jobs/{job.id}/moderation"
    assert service.http.get(path).json()["data"] == []
    job_dir = service.settings.jobs_dir / job.id
    job_dir.mkdir(parents=True)
    rows = [FlaggedRow("training_file", number, number, {"hate": 0.75}) for number in range(1, 6)]
    (job_dir / "moderation.jsonl").write_bytes(b"".join(to_json(row) + b"\n" for row in rows))
    first = service.http.get(path, params={"limit": 3}).json()
    assert [row["row"] for row in first["data"]] == [1, 2, 3]
    assert first["has_more"]
    assert first["data"][0]["categories"] == {"hate": 0.75}
    rest = service.http.get(path, params={"after": first["last_id"]}).json()
    assert [row["id"] for row in rest["data"]] == ["flag-4", "flag-5"]
    assert not rest["has_more"]
    assert service.http.get(path, params={"after": "row-1"}).status_code == 400
    assert service.http.get("/v1/tunesmith/jobs/ftjob-x/moderation").status_code == 404
