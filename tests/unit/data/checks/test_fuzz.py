"""Nothing that a file can hold raises, costs more than linear time, or breaks the report's JSON."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.data.checks.plants import dump, load
from tunesmith.bases import embedded_directory
from tunesmith.data.codes import CODES
from tunesmith.data.formats import read_rows
from tunesmith.data.render import Renderer
from tunesmith.data.report import report
from tunesmith.data.sarif import to_sarif
from tunesmith.errors import DataError

KEYS = (
    "messages role content name weight tools tool_calls function function_call arguments id type"
    " tool_call_id parallel_tool_calls prompt completion input preferred_output functions item"
    " non_preferred_output conversations from value chosen rejected text refusal"
).split()
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(["user", "assistant", "system", "tool", "function", "{}", "<|im_end|>"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text(max_size=5)), inner, max_size=5),
    ),
    max_leaves=20,
)
MESSAGES = st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), max_size=5)
ROWS = st.one_of(VALUES, st.builds(lambda messages: {"messages": messages}, MESSAGES))
QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
METHODS = ("supervised", "dpo", "reinforcement", "evals", None)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer.load(embedded_directory())


def check(path: Path, content: bytes, method: str | None, renderer: Renderer | None) -> None:
    path.write_bytes(content)
    result = report(path, valid=path, method=method, renderer=renderer, max_tokens=64)
    json.dumps(result.to_json()).encode()
    json.dumps(to_sarif(result)).encode()
    for each in result.all_findings:
        assert each.code in CODES
        assert len(each.rows) == len(each.lines)
        assert list(each.rows) == sorted(each.rows)
    if method == "supervised" and renderer is None:
        assert refuses(path) <= any(each.severity == "error" for each in result.all_findings)


def refuses(path: Path) -> bool:
    try:
        list(read_rows(path))
    except DataError:
        return True
    return False


@QUICK
@given(rows=st.lists(ROWS, max_size=14), method=st.sampled_from(METHODS), render=st.booleans())
def test_any_rows(
    rows: list[Any], method: str | None, render: bool, tmp_path: Path, renderer: Renderer
) -> None:
    content = "\n".join(json.dumps(row) for row in rows).encode()
    check(tmp_path / "a.jsonl", content, method, renderer if render else None)


@QUICK
@given(content=st.binary(max_size=400), method=st.sampled_from(METHODS))
def test_any_bytes(content: bytes, method: str | None, tmp_path: Path) -> None:
    check(tmp_path / "a.jsonl", content, method, None)


@QUICK
@given(seed=st.integers(0, 1 << 30), method=st.sampled_from(METHODS))
def test_mutated_files(seed: int, method: str | None, tmp_path: Path) -> None:
    rng = random.Random(seed)
    name = rng.choice(["sgd_chat", "bfcl_tools", "hh_preference", "banking_labels"])
    rows = rng.sample(load(f"{name}.jsonl"), 14)
    content = bytearray(b"\n".join(dump(rows)))
    for _ in range(rng.randrange(1, 30)):
        place = rng.randrange(len(content))
        end = place + rng.choice((0, 1, 1, 5, 200))
        content[place:end] = rng.choice(
            (b"", b"\n", b'"', b"{", b"}", b"[", b"]", b"\\", b",", b"null", b"\xff", b"\\ud800")
        ) or bytes([rng.randrange(256)])
    check(tmp_path / "a.jsonl", bytes(content), method, None)


HOSTILE = {
    "brackets": b"[" * 500_000 + b"\n" + b'{"a":' * 100_000,
    "numbers": b'{"messages": ' + b"9" * 900_000 + b"}\n" + b'{"weight": 1e' + b"9" * 1000 + b"}",
    "a key of a megabyte": b'{"' + b"k" * 1_000_000 + b'": 1}',
    "a line without end": b'{"messages": "' + b"x" * 4_000_000,
    "open braces line by line": b"{\n" * 20_000,
    "closing braces line by line": b'{"a":\n' + b"}\n" * 20_000,
    "half objects": b'{"a": 1,\n"b": 2\n' * 20_000,
    "blank lines": b"\n" * 1_000_000,
    "escapes": b'{"messages": [{"role": "user", "content": "' + b"\\u0000" * 150_000 + b'"}]}',
    "tokens that almost match": b'{"prompt": "'
    + b"-eyJ" * 100_000
    + b" 1(1(1 a@a.a@ +1-1- pwd=pwd= ://a:a://" * 8000
    + b'", "completion": "x"}',
    "many keys": b"{" + b",".join(b'"%d": 1' % key for key in range(60_000)) + b"}",
    "nul bytes": b"\x00" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_cost_linear_time(name: str, tmp_path: Path) -> None:
    started = time.process_time()
    check(tmp_path / "a.jsonl", HOSTILE[name], "supervised", None)
    check(tmp_path / "a.jsonl", HOSTILE[name], None, None)
    # Two reports of two files each; seconds where anything more than linear would take hours.
    assert time.process_time() - started < 60
