"""What the data screens ask for: single rows, tokens, numbers, repairs, splits, the demo."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service import BASE, ROW, Service
from tunesmith.api import data
from tunesmith.data import index
from tunesmith.data.repair import DEFAULT

DATA = "/v1/tunesmith/data"
TALK = json.loads(ROW)


def row(question: str, answer: str, **extra: Any) -> bytes:
    talk = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": talk} | extra).encode() + b"\n"


def upload(service: Service, content: bytes) -> str:
    return service.client.files.create(file=("my rows.jsonl", content), purpose="fine-tune").id


def post(service: Service, path: str, **body: Any) -> Any:
    return service.http.post(f"{DATA}/{path}", json=body)


MIXED = (
    b"\xef\xbb\xbf"
    + row("Where is Rome?", "Italy")
    + b"\n"
    + json.dumps(TALK, indent=1).encode()
    + b"\n"
    + b'{"broken": \n'
    + row("Whose is it?", "MINE, all mine")
)


def test_the_index_leads_to_every_row(service: Service) -> None:
    file = upload(service, MIXED)
    found = post(service, "index", file=file).json()
    assert found["num_rows"] == 4
    assert (found["number"], found["line"][0]) == ([1, 2, 3, 4], 1)
    assert [found["shapes"][shape] for shape in found["shape"]] == [
        "user assistant",
        "user assistant",
        "unreadable",
        "user assistant",
    ]
    rows = post(service, "rows", file=file, offsets=found["offset"]).json()["rows"]
    assert [each["offset"] for each in rows] == found["offset"]
    assert json.loads(rows[0]["text"])["messages"][1]["content"] == "Italy"
    assert json.loads(rows[1]["text"]) == TALK
    assert rows[2]["problem"] and rows[2]["text"] == '{"broken": '
    last = post(service, "rows", file=file, offsets=found["offset"][3:]).json()["rows"]
    assert last == rows[3:]


def test_text_is_found_in_values_in_whatever_case(service: Service) -> None:
    file = upload(service, MIXED)
    found = post(service, "index", file=file, text="mine").json()
    assert (found["num_rows"], found["number"]) == (4, [4])
    assert post(service, "index", file=file, text="messages").json()["number"] == []


def test_rows_are_found_by_their_length(service: Service) -> None:
    file = upload(service, MIXED)
    whole = post(service, "index", file=file, unit="characters").json()
    # A row that cannot be read has no length.
    assert whole["number"] == [1, 2, 4]
    assert whole["length"][2] == len("Whose is it?" + "MINE, all mine")
    shortest = min(whole["length"])
    found = post(service, "index", file=file, unit="characters", max_length=shortest).json()
    assert found["length"] == [shortest]
    found = post(service, "index", file=file, unit="characters", min_length=shortest + 1).json()
    assert (found["num_rows"], len(found["number"])) == (4, 2)
    tokens = post(service, "index", file=file, unit="tokens", base=BASE).json()
    # Nor has, in tokens, one that a job would refuse.
    talk = post(service, "tokens", file=file, offset=whole["offset"][1], base=BASE)
    assert talk.status_code == 400
    assert tokens["number"] == [1, 4]
    for number, length in zip(tokens["offset"], tokens["length"], strict=True):
        seen = post(service, "tokens", file=file, offset=number, base=BASE).json()
        assert [each["num_tokens"] for each in seen["sequences"]] == [length]


def test_a_page_of_long_rows_holds_fewer(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "MAX_PAGE_CHARS", 200)
    monkeypatch.setattr(index, "MAX_ROW_CHARS", 150)
    file = upload(service, row("q", "a" * 500) * 3)
    offsets = post(service, "index", file=file).json()["offset"]
    rows = post(service, "rows", file=file, offsets=offsets).json()["rows"]
    assert [(each["is_cut"], len(each["text"])) for each in rows] == [(True, 150)]


@settings(max_examples=40, deadline=None)
@given(offset=st.integers(0, 400))
def test_no_offset_breaks_the_reading(tmp_path_factory: Any, offset: int) -> None:
    path = tmp_path_factory.getbasetemp() / "mixed.jsonl"
    path.write_bytes(MIXED)
    for found in index.read_at(path, [offset]):
        assert set(found) == {"offset", "text", "is_cut", "problem"}


def test_tokens_are_those_of_training(service: Service) -> None:
    file = upload(service, row("Where?", "Here"))
    found = post(service, "tokens", file=file, offset=0, base=BASE).json()
    [shown] = found["sequences"]
    stats = post(service, "stats", file=file, base=BASE).json()
    assert shown["num_tokens"] == stats["num_tokens"]
    assert shown["num_trained"] == stats["num_trained_tokens"]
    assert sum(len(token["ids"]) for token in shown["tokens"]) == shown["num_tokens"]
    trained = "".join(token["text"] for token in shown["tokens"] if token["trained"])
    assert trained.startswith("Here")
    assert found["max_tokens"] == 1024 and not any(token["beyond"] for token in shown["tokens"])
    cut = post(service, "tokens", file=file, offset=0, base=BASE, max_tokens=4).json()
    [shown] = cut["sequences"]
    assert [token["beyond"] for token in shown["tokens"]].index(True) <= 4
    assert shown["num_beyond"] == shown["num_tokens"] - 4


def test_both_answers_of_a_pair_are_shown(service: Service) -> None:
    pair = {
        "input": {"messages": [{"role": "user", "content": "Hi"}]},
        "preferred_output": [{"role": "assistant", "content": "Yo"}],
        "non_preferred_output": [{"role": "assistant", "content": "No"}],
    }
    file = upload(service, json.dumps(pair).encode() + b"\n")
    found = post(service, "tokens", file=file, offset=0, base=BASE).json()
    assert [each["name"] for each in found["sequences"]] == ["preferred", "rejected"]


def test_a_row_that_cannot_be_shown_says_why(service: Service) -> None:
    file = upload(service, ROW + b'{"messages": []}\n')
    answer = post(service, "tokens", file=file, offset=len(ROW), base=BASE)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert "This row" in error["message"] and "line 1" not in error["message"]
    beyond = post(service, "tokens", file=file, offset=10_000, base=BASE)
    assert (beyond.status_code, beyond.json()["error"]["param"]) == (400, "offset")


def test_numbers_come_with_histograms(service: Service) -> None:
    labels = [row(f"number {n}", "even" if n % 2 == 0 else "odd") for n in range(12)]
    file = upload(service, b"".join(labels))
    found = post(service, "stats", file=file, base=BASE).json()
    assert found["num_rows"] == 12
    assert {each["text"]: each["count"] for each in found["labels"]} == {"even": 6, "odd": 6}
    assert found["balance"] == 1.0
    for name in ("tokens", "turns", "answer_characters"):
        assert sum(each["count"] for each in found["histograms"][name]) == 12
    broken = upload(service, ROW + b"{\n")
    assert post(service, "stats", file=broken, base=BASE).json()["error"]["param"] == "file"


FAULTY = (
    ROW * 2
    + ROW.replace(b'"assistant"', b'"bot"')
    + row("a", "b", extra=1)
    + row("text with a secret", " spaces ")
)


def test_a_repair_is_shown_before_it_is_saved_as_a_new_file(service: Service) -> None:
    file = upload(service, FAULTY)
    shown = post(service, "fix", file=file, dry_run=True).json()
    assert shown["fixed_file"] is None
    assert shown["codes"] == {"exact_duplicate": 3, "wrong_role": 1, "unknown_key": 1}
    assert (shown["num_rows"], shown["num_left_out"], shown["num_changes"]) == (2, 3, 3)
    assert shown["changes"][0]["after"] is None
    assert {code for code, each in shown["repairs"].items() if each["by_default"]} == DEFAULT
    assert len(service.client.files.list().data) == 1
    done = post(service, "fix", file=file).json()
    made = done["fixed_file"]
    assert (made["filename"], made["purpose"]) == ("my rows-fixed.jsonl", "fine-tune")
    assert {**done, "fixed_file": None} == shown
    content = service.client.files.content(made["id"]).read()
    assert len(content) == made["bytes"] and content.count(b"\n") == 2
    assert service.client.files.content(file).read() == FAULTY
    report = post(service, "report", file=made["id"]).json()
    assert not {"wrong_role", "unknown_key"} & {each["code"] for each in report["findings"]}


def test_only_the_named_repairs_are_done(service: Service) -> None:
    file = upload(service, FAULTY)
    shown = post(service, "fix", file=file, codes=["mixed_endings"], dry_run=True).json()
    assert shown["codes"] == {"mixed_endings": 1}
    answer = post(service, "fix", file=file, codes=["magic"])
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "codes")


def test_a_split_is_shown_before_it_is_saved_as_two_files(service: Service) -> None:
    rows = [row(f"question {n} about {n * 7919}", f"answer {n * 104729}") for n in range(20)]
    file = upload(service, b"".join(rows) + rows[3])
    shown = post(service, "split", file=file, ratio=0.2, seed=3, dry_run=True).json()
    assert shown["num_train"] + shown["num_valid"] == 21
    assert (shown["training_file"], shown["validation_file"]) == (None, None)
    done = post(service, "split", file=file, ratio=0.2, seed=3).json()
    for name, part in (("training_file", "train"), ("validation_file", "valid")):
        made = done[name]
        assert made["filename"] == f"my rows-{part}.jsonl"
        assert made["bytes"] == shown[f"{part}_bytes"]
        content = service.client.files.content(made["id"]).read()
        assert content.count(b"\n") == shown[f"num_{part}"]
    one = upload(service, ROW)
    refused = post(service, "split", file=one, ratio=0.5)
    assert refused.status_code == 400
    assert "one side would be empty" in refused.json()["error"]["message"]


@pytest.mark.parametrize("path", ["index", "split"])
def test_large_files_are_read_in_a_process_of_their_own(
    service: Service, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    file = upload(service, FAULTY.replace(b"secret", b"password") * 3)
    body: dict[str, Any] = {"file": file}
    body |= {"dry_run": True} if path == "split" else {}
    here = post(service, path, **body)
    monkeypatch.setattr(data, "MAX_BYTES_HERE", 0)
    apart = post(service, path, **body)
    # Refusals cross the border of the process, too.
    assert (apart.status_code, apart.json()) == (here.status_code, here.json())


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("index", {"file": "file-missing"}, 404, "file"),
        ("index", {"file": "../../etc/passwd"}, 404, "file"),
        ("index", {"file": "FILE", "unit": "tokens"}, 400, "base"),
        ("index", {"file": "FILE", "unit": "tokens", "base": "no-such-model"}, 404, "base"),
        ("index", {"file": "FILE", "min_length": 1}, 400, "unit"),
        ("index", {"file": "FILE", "unit": "characters", "max_length": -1}, 400, "max_length"),
        ("rows", {"file": "FILE", "offsets": []}, 400, "offsets"),
        ("rows", {"file": "FILE", "offsets": [-1]}, 400, "offsets.0"),
        ("rows", {"file": "FILE", "offsets": list(range(201))}, 400, "offsets"),
        ("tokens", {"file": "FILE", "offset": 0, "base": "no-such-model"}, 404, "base"),
        ("stats", {"file": "FILE"}, 400, "base"),
        ("split", {"file": "FILE", "ratio": 1}, 400, "ratio"),
        ("fix", {"file": "FILE", "dry_run": "yes"}, 400, "dry_run"),
    ],
)
def test_refusals(
    service: Service, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    if body["file"] == "FILE":
        body = body | {"file": upload(service, ROW)}
    answer = post(service, path, **body)
    assert answer.status_code == status
    assert answer.json()["error"]["param"].replace("[0]", ".0") == param


def test_the_demo_brings_its_files_once_and_names_a_job(service: Service) -> None:
    first = service.http.post("/v1/tunesmith/demo").json()
    again = service.http.post("/v1/tunesmith/demo").json()
    assert first == again
    assert len(service.client.files.list().data) == 2
    job = service.client.fine_tuning.jobs.create(**first["job"])
    assert job.training_file == first["training_file"]["id"]
