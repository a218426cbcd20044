from __future__ import annotations

import json
import logging
import sys

import pytest

from tunesmith.ops.telemetry import JsonFormatter, configure_logging, redact

KEY = "sk-" + "A1b2" * 10


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("x", logging.WARNING, __file__, 1, message, (), None)
    made.__dict__.update(extra)
    return made


def test_a_line_is_one_json_object() -> None:
    text = JsonFormatter("api").format(record("two\nlines", fields={"path": "/v1", "ms": 3}))
    assert "\n" not in text
    line = json.loads(text)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "service": "api",
        "message": "two\nlines",
        "path": "/v1",
        "ms": 3,
    }


def test_an_exception_is_told_with_its_traceback() -> None:
    try:
        raise ValueError(f"bad {KEY}")
    except ValueError:
        made = record("failed", exc_info=sys.exc_info())
    line = JsonFormatter("api").format(made)
    assert "Traceback" in json.loads(line)["error"]
    assert KEY not in line


@pytest.mark.parametrize("text", [KEY, f"Bearer {KEY}", f'{{"key": "{KEY}"}}', f"a,{KEY},b"])
def test_keys_are_cut_down(text: str) -> None:
    assert KEY not in redact(text)
    assert redact(text) == text.replace(KEY, "sk-...A1b2")


@pytest.mark.parametrize("text", ["task-123456789", "sk-short", "risk-assessment-of-things"])
def test_other_words_stay(text: str) -> None:
    assert redact(text) == text


def test_the_level_holds_for_everything(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure_logging("api", "warning")
        logging.getLogger("anything").info("quiet")
        logging.getLogger("anything").warning("loud %d", 3)
    finally:
        root.handlers[:], root.level = before
    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "loud 3"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("whsec_c2VjcmV0L3NlY3JldCtzZWNyZXQ=", "whsec_...ZXQ="),
        ("smtp://ts:pass-w0rd@mail.example.com:587", "smtp://ts:***@mail.example.com:587"),
        ("redis://:pass-w0rd@localhost/0", "redis://:***@localhost/0"),
        ("https://example.com/a:b@c", "https://example.com/a:b@c"),
    ],
)
def test_signing_secrets_and_passwords_are_cut_down(text: str, shown: str) -> None:
    assert redact(f"before {text} after") == f"before {shown} after"


def test_the_secrets_of_the_settings_are_not_written() -> None:
    secrets = ['odd "secret"', "plain-secret"]
    made = record("an error with plain-secret", fields={"said": 'odd "secret"'})
    line = json.loads(JsonFormatter("worker", secrets).format(made))
    assert line["message"] == "an error with ***"
    assert line["said"] == "***"
