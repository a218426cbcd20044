"""Settings on their way to other processes, and the secrets among them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tunesmith.config import (
    MODERATION_KEY,
    Settings,
    as_environment,
    secrets_of,
    without_secrets,
)

SMTP = "smtp://ts:pass%2Fw0rd@mail.example.com"


def settings(data: Path) -> Settings:
    return Settings(
        data=data,
        smtp_url=SMTP,
        smtp_starttls=False,
        wandb_api_key="key-of-wandb",
        metrics_token="token-of-metrics",
        outbound_allow=("10.0.0.0/8", "hooks.internal"),
    )


def test_another_process_gets_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = settings(tmp_path)
    for name, value in as_environment(given).items():
        monkeypatch.setenv(name, value)
    assert Settings() == given


def test_processes_that_need_none_get_no_secret(tmp_path: Path) -> None:
    told = without_secrets({**as_environment(settings(tmp_path)), "TUNESMITH_API_KEY": "sk-1"})
    assert "TUNESMITH_OUTBOUND_ALLOW" in told
    for secret in (SMTP, "key-of-wandb", "token-of-metrics", "sk-1"):
        assert secret not in told.values()


def test_a_password_is_known_as_it_is_written_and_as_it_is_meant(tmp_path: Path) -> None:
    found = secrets_of(settings(tmp_path))
    assert {SMTP, "pass%2Fw0rd", "pass/w0rd", "key-of-wandb", "token-of-metrics"} == set(found)


def test_settings_do_not_show_their_secrets(tmp_path: Path) -> None:
    shown = repr(settings(tmp_path))
    assert "w0rd" not in shown
    assert "key-of-wandb" not in shown


@pytest.mark.parametrize(
    "wrong",
    [{"outbound_allow": ("10.0.0.0/99",)}, {"smtp_url": "mail.example.com"}],
)
def test_what_would_fail_later_is_refused_at_the_start(
    wrong: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))) as caught:
        Settings(data=tmp_path, **wrong)  # type: ignore[arg-type]
    assert caught.value.error_count() == 1


def test_what_checks_files_may_keep_the_key_of_the_moderation_model() -> None:
    given = {MODERATION_KEY: "sk-guard", "TUNESMITH_API_KEY": "sk-1", "PATH": "/bin"}
    assert without_secrets(given, keep=MODERATION_KEY) == {
        MODERATION_KEY: "sk-guard",
        "PATH": "/bin",
    }
    assert without_secrets(given) == {"PATH": "/bin"}


def test_a_model_that_moderates_needs_an_address() -> None:
    with pytest.raises(ValueError, match="moderation_url and moderation_model"):
        Settings(moderation="guard")
