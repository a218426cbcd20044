"""POST /v1/tunesmith/data/report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.service import BASE, ROW, Service
from tunesmith.api import data
from tunesmith.bases import embedded_directory
from tunesmith.data.openai_tokens import ENCODINGS
from tunesmith.data.render import Renderer
from tunesmith.data.report import report

PATH = "/v1/tunesmith/data/report"


def upload(service: Service, content: bytes) -> str:
    return service.client.files.create(file=content, purpose="fine-tune").id


def post(service: Service, **body: Any) -> Any:
    return service.http.post(PATH, json=body)


def test_findings_figures_and_a_page_of_rows(service: Service) -> None:
    broken = ROW.rstrip() + b"}\n"
    file = upload(service, ROW * 11 + broken + ROW)
    answer = post(service, file=file, after=10, limit=2)
    assert answer.status_code == 200
    body = answer.json()
    assert body["object"] == "tunesmith.data.report"
    assert (body["file"], body["kind"], body["num_rows"], body["ok"]) == (file, "chat", 13, False)
    first = body["findings"][0]
    assert (first["code"], first["rows"], first["lines"]) == ("invalid_json", [12], [12])
    assert first["effect"]
    assert first["fix"]
    assert body["figures"]["num_examples"] == 13
    assert [(row["number"], "invalid_json" in row["codes"]) for row in body["rows"]] == [
        (11, False),
        (12, True),
    ]
    assert body["rows"][1]["text"] == broken.decode().rstrip()
    assert body["has_more"] is True
    assert post(service, file=file, after=12).json()["has_more"] is False


def test_a_validation_file(service: Service) -> None:
    file = upload(service, ROW * 12)
    body = post(service, file=file, validation_file=file, method="supervised").json()
    assert body["ok"] is True
    assert "leakage" in [each["code"] for each in body["validation"]["findings"]]
    assert body["validation"]["file"] == file


def test_the_report_is_the_whole_one(service: Service, tmp_path: Path) -> None:
    """What the command line prints as JSON, and a page of rows."""
    file = upload(service, ROW * 12)
    body = post(service, file=file, base=BASE, method="supervised").json()
    path = tmp_path / "a.jsonl"
    path.write_bytes(ROW * 12)
    renderer = Renderer.load(embedded_directory())
    found = report(path, renderer=renderer, max_tokens=1024, encodings=tuple(ENCODINGS)).to_json()
    assert {name: body[name] for name in found} == found | {"file": file}
    assert (body["base"], body["method"]) == (BASE, "supervised")
    assert body["notebook"]["errors"] == {}
    assert body["notebook"]["num_total_tokens_per_example"]["max"] == 13
    assert body["openai_tokens"] == {"cl100k_base": 156, "o200k_base": 156}
    assert body["tokens"]["total"] > body["tokens"]["trained"] > 0


def test_a_large_file_is_checked_in_a_process_of_its_own(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = upload(service, ROW * 12)
    here = post(service, file=file).json()
    monkeypatch.setattr(data, "MAX_BYTES_HERE", 0)
    assert post(service, file=file).json() == here


def test_preference_rows_are_counted(service: Service) -> None:
    pair = {
        "input": {"messages": [{"role": "user", "content": "Hi"}]},
        "preferred_output": [{"role": "assistant", "content": "Yo"}],
        "non_preferred_output": [{"role": "assistant", "content": "No"}],
    }
    file = upload(service, json.dumps(pair).encode() + b"\n")
    body = post(service, file=file, base=BASE).json()
    assert body["kind"] == "preference" and body["notebook"] is None
    assert body["tokens"]["trained"] > 0 and body["openai_tokens"]["o200k_base"] > 0


def test_pages_of_rows_reach_the_end_once(service: Service) -> None:
    spread = json.dumps(json.loads(ROW), indent=2).encode() + b"\n"
    file = upload(service, ROW * 3 + spread + ROW * 3)
    numbers: list[int] = []
    has_more = True
    while has_more:
        page = post(service, file=file, after=numbers[-1] if numbers else 0, limit=2).json()
        numbers += [row["number"] for row in page["rows"]]
        has_more = page["has_more"]
        for row in page["rows"]:
            assert json.loads(row["text"]) == json.loads(ROW)
            assert ("pretty_printed" in row["codes"]) == (row["number"] == 4)
    assert numbers == list(range(1, 8))
    assert post(service, file=file, limit=0).json()["rows"] == []


def test_a_report_that_takes_too_long_is_refused(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "MAX_BYTES_HERE", 0)
    monkeypatch.setattr(data, "TIMEOUT_S", 0.001)
    answer = post(service, file=upload(service, ROW * 12))
    assert answer.status_code == 400
    assert "tunesmith data check" in answer.json()["error"]["message"]
    assert "more than 0.001 s" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"file": "file-missing"}, 404, "file"),
        ({"file": "FILE", "validation_file": "file-missing"}, 404, "validation_file"),
        ({"file": "FILE", "base": "no-such-model"}, 404, "base"),
        ({"file": "FILE", "after": -1}, 400, "after"),
        ({"file": "../../etc/passwd"}, 404, "file"),
        ({"file": "FILE", "method": "magic"}, 400, "method"),
        ({"file": "FILE", "limit": 1000}, 400, "limit"),
        ({"file": 7}, 400, "file"),
        ({}, 400, "file"),
    ],
)
def test_refusals(service: Service, body: dict[str, Any], status: int, param: str) -> None:
    if body.get("file") == "FILE":
        body = body | {"file": upload(service, ROW * 12)}
    answer = post(service, **body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["param"] == param


def test_it_is_behind_the_gate(service: Service) -> None:
    answer = service.http.post(PATH, content=json.dumps({}), headers={"authorization": "Bearer x"})
    assert answer.status_code == 401
