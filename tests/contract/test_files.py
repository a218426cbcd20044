"""/v1/files through the official client; every answer is held to the published schema."""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.service import ROW, Service
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.api import files
from tunesmith.store.repo import files as repo
from tunesmith.store.repo.files import FileRow


def stored(service: Service) -> list[Path]:
    return [path for path in service.settings.blobs_dir.rglob("*") if path.is_file()]


def test_a_file_from_upload_to_deletion(service: Service) -> None:
    client = service.client
    made = client.files.create(file=("train.jsonl", ROW * 20), purpose="fine-tune")
    assert made.id.startswith("file-")
    assert (made.bytes, made.filename, made.purpose) == (len(ROW) * 20, "train.jsonl", "fine-tune")
    assert made.status == "processed"
    assert client.files.wait_for_processing(made.id).id == made.id
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == ROW * 20
    assert [each.id for each in client.files.list()] == [made.id]
    assert client.files.delete(made.id).deleted
    assert list(client.files.list()) == []
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {made.id}") as caught:
            call(made.id)
        assert caught.value.param == "id"


def test_the_row_knows_the_bytes_that_are_on_disk(service: Service) -> None:
    made = service.client.files.create(file=b"some bytes", purpose="batch")
    with service.db.read() as conn:
        row = repo.get(conn, DEFAULT_PROJECT, made.id)
    [blob] = stored(service)
    assert row is not None
    assert blob.read_bytes() == b"some bytes"
    assert row.sha256 == hashlib.sha256(b"some bytes").hexdigest()


@pytest.mark.parametrize("filename", ["file", "x.PDF", "a/b.jsonl", "no extension"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff not json", b"{" * 1000])
def test_neither_name_nor_content_is_judged_at_upload(
    service: Service, filename: str, content: bytes
) -> None:
    made = service.client.files.create(file=(filename, content), purpose="fine-tune")
    assert service.client.files.content(made.id).read() == content


@pytest.mark.parametrize("purpose", files.UPLOAD_PURPOSES)
def test_every_published_purpose_is_taken(service: Service, purpose: Any) -> None:
    assert service.client.files.create(file=b"x", purpose=purpose).purpose == purpose


@pytest.mark.parametrize("purpose", ["fine-tune-results", "x", ""])
def test_other_purposes_are_refused_and_leave_nothing(service: Service, purpose: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        service.client.files.create(file=b"x", purpose=purpose)
    assert caught.value.param == "purpose"
    assert stored(service) == []


def test_a_form_without_file_or_purpose_is_refused(service: Service) -> None:
    for sent, param in (
        ({"files": {"other": b"x"}, "data": {"purpose": "fine-tune"}}, "file"),
        ({"files": {"file": b"x"}}, "purpose"),
    ):
        answer = service.http.post("/v1/files", **sent)  # type: ignore[arg-type]
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param
    assert stored(service) == []


def test_a_file_above_the_limit_is_413_with_the_limit(service: Service) -> None:
    with pytest.raises(openai.APIStatusError, match="200000 bytes") as caught:
        service.client.files.create(file=io.BytesIO(b"x" * 200_001), purpose="fine-tune")
    assert caught.value.status_code == 413
    assert stored(service) == []
    assert service.client.files.create(file=b"x" * 200_000, purpose="fine-tune").bytes == 200_000


def test_a_file_may_expire(service: Service) -> None:
    after: Any = {"anchor": "created_at", "seconds": 3600}
    made = service.client.files.create(file=b"x", purpose="batch", expires_after=after)
    assert made.expires_at == made.created_at + 3600


@pytest.mark.parametrize(
    "after",
    [
        {"anchor": "created_at", "seconds": 3599},
        {"anchor": "created_at", "seconds": 2592001},
        {"anchor": "created_at", "seconds": "9" * 5000},
        {"anchor": "created_at"},
        {"anchor": "other", "seconds": 3600},
        {"seconds": 3600},
    ],
)
def test_a_wrong_expiry_is_refused(service: Service, after: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        service.client.files.create(file=b"x", purpose="batch", expires_after=after)
    assert str(caught.value.param).startswith("expires_after")


def test_pages_hold_every_file_once(service: Service) -> None:
    client = service.client
    made = [client.files.create(file=b"x", purpose="batch").id for _ in range(5)]
    other = client.files.create(file=b"x", purpose="vision").id
    assert [each.id for each in client.files.list(purpose="batch", limit=2)] == made[::-1]
    assert [each.id for each in client.files.list(purpose="batch", limit=2, order="asc")] == made
    page = client.files.list(limit=4)
    assert page.has_more
    assert len(list(client.files.list(limit=4))) == 6
    assert page.data[0].id == other


def results(service: Service, table: bytes) -> str:
    writer_id = "file-" + "r" * 24
    writer = service.blobs.writer(writer_id)
    writer.write(table)
    num_bytes, sha256 = writer.finish()
    row = FileRow(
        writer_id, DEFAULT_PROJECT, "step_metrics.csv", num_bytes, "fine-tune-results", sha256, 1
    )
    with service.db.write() as conn:
        repo.insert(conn, row)
    return writer_id


@pytest.mark.parametrize("num_rows", [0, 1, 40_000])
def test_results_come_as_base64_and_plain_on_request(service: Service, num_rows: int) -> None:
    table = b"step,train_loss\n" + b"1,0.5\n" * num_rows
    file_id = results(service, table)
    assert service.client.files.retrieve(file_id).purpose == "fine-tune-results"
    assert base64.b64decode(service.client.files.content(file_id).read(), validate=True) == table
    path = f"/v1/files/{file_id}/content"
    assert service.http.get(path, params={"format": "csv"}).content == table
    plain = service.http.get(path, headers={"accept": "text/csv"})
    assert plain.content == table
    assert plain.headers["content-type"].startswith("text/csv")


@given(st.text(min_size=1, max_size=60))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_id_leads_out_of_the_store(service: Service, file_id: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in file_id.encode())
    for path in (f"/v1/files/{quoted}", f"/v1/files/{quoted}/content"):
        assert service.http.get(path).status_code == 404
        assert service.http.delete(path).status_code == 404


def test_uploads_at_the_same_time_do_not_meet(service: Service) -> None:
    contents = [bytes([number]) * 50_000 for number in range(8)]
    made: dict[int, str] = {}

    def upload(number: int) -> None:
        file = service.client.files.create(file=contents[number], purpose="fine-tune")
        made[number] = file.id

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made.values())) == 8
    for number, file_id in made.items():
        assert service.client.files.content(file_id).read() == contents[number]
