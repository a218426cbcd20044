from __future__ import annotations

import json
import time

import pytest
from openai import InvalidWebhookSignatureError, OpenAI

from tunesmith.jobs import signing
from tunesmith.jobs.outbox import EVENT_TYPES

PEPPER = b"p" * 32
CLIENT = OpenAI(api_key="none")


def signed(*generations: int, at: float = 0.0) -> tuple[bytes, dict[str, str]]:
    event_id = signing.event_id_of("ftjob-1", EVENT_TYPES[0])
    body = signing.event_body(event_id, EVENT_TYPES[0], "ftjob-1", 1_800_000_000)
    secrets = [signing.secret_of(PEPPER, "whe_1", number) for number in generations]
    return body, signing.headers(secrets, event_id, int(time.time() + at), body)


def test_the_official_client_accepts_it() -> None:
    body, headers = signed(0)
    event = CLIENT.webhooks.unwrap(body, headers, secret=signing.secret_of(PEPPER, "whe_1", 0))
    assert event.type == "fine_tuning.job.succeeded"
    assert event.data.id == "ftjob-1"
    assert json.loads(body) == {
        "id": headers["webhook-id"],
        "object": "event",
        "created_at": 1_800_000_000,
        "type": "fine_tuning.job.succeeded",
        "data": {"id": "ftjob-1"},
    }


def test_both_secrets_sign_while_one_replaces_the_other() -> None:
    body, headers = signed(1, 0)
    for generation in (0, 1):
        secret = signing.secret_of(PEPPER, "whe_1", generation)
        CLIENT.webhooks.verify_signature(body, headers, secret=secret)


@pytest.mark.parametrize("secret", [("whe_1", 1), ("whe_2", 0)])
def test_other_secrets_do_not_fit(secret: tuple[str, int]) -> None:
    body, headers = signed(0)
    with pytest.raises(InvalidWebhookSignatureError):
        CLIENT.webhooks.unwrap(body, headers, secret=signing.secret_of(PEPPER, *secret))


def test_what_was_changed_or_is_old_does_not_pass() -> None:
    secret = signing.secret_of(PEPPER, "whe_1", 0)
    body, headers = signed(0)
    with pytest.raises(InvalidWebhookSignatureError):
        CLIENT.webhooks.unwrap(body.replace(b"ftjob-1", b"ftjob-2"), headers, secret=secret)
    body, headers = signed(0, at=-301)
    with pytest.raises(InvalidWebhookSignatureError, match="too old"):
        CLIENT.webhooks.unwrap(body, headers, secret=secret)


def test_secrets_are_of_256_bits_and_their_hint_hides_them() -> None:
    secret = signing.secret_of(PEPPER, "whe_1", 0)
    assert len(secret) == len("whsec_") + 44
    assert signing.hint_of(secret) == f"whsec_...{secret[-4:]}"
