"""One attempt to deliver something: a signed POST to an endpoint, or an e-mail to an address."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tunesmith.config import Settings
from tunesmith.errors import TunesmithError
from tunesmith.jobs import signing
from tunesmith.jobs.letters import letter
from tunesmith.ops import mail, outbound
from tunesmith.ops.mail import MailError
from tunesmith.ops.outbound import Allowed, OutboundError
from tunesmith.store.db import Database
from tunesmith.store.repo import jobs, webhook_endpoints
from tunesmith.store.repo.outbox import DeliveryRow
from tunesmith.store.repo.webhook_endpoints import EndpointRow


@dataclass(frozen=True)
class Outcome:
    duration_ms: int
    status_code: int | None = None
    """Of a webhook's answer."""
    error: str | None = None
    """None: delivered."""
    final: bool = False
    """Trying again would not help."""


class Undeliverable(TunesmithError):
    """There is nobody any more to deliver to, or no means."""


async def attempt(
    db: Database, settings: Settings, pepper: bytes, row: DeliveryRow, now: int
) -> Outcome:
    """Tries once; all that can go wrong on the way is in the outcome."""
    started_s = time.monotonic()
    status_code, error, final = None, None, False
    try:
        if row.channel == "webhook":
            status_code = await _post(db, settings, pepper, row, now)
            error = None if 200 <= status_code < 300 else f"It answered with {status_code}."
        else:
            await _mail(db, settings, row, now)
    except OutboundError as problem:
        error = problem.message
    except MailError as problem:
        error, final = problem.message, problem.final
    except Undeliverable as problem:
        error, final = problem.message, True
    duration_ms = round((time.monotonic() - started_s) * 1000)
    return Outcome(duration_ms, status_code, error, final)


async def _post(db: Database, settings: Settings, pepper: bytes, row: DeliveryRow, now: int) -> int:
    with db.read() as conn:
        endpoint = webhook_endpoints.get(conn, row.project_id, row.target)
    if endpoint is None:
        raise Undeliverable("The endpoint was deleted.")
    body = signing.event_body(row.event_id, row.event_type, row.job_id, row.created_at)
    return await post_event(settings, pepper, endpoint, row.event_id, body, now)


async def post_event(
    settings: Settings, pepper: bytes, endpoint: EndpointRow, event_id: str, body: bytes, now: int
) -> int:
    """The status that an endpoint answers a signed event with. Raises OutboundError."""
    secrets = [
        signing.secret_of(pepper, endpoint.id, generation)
        for generation in endpoint.generations(now)
    ]
    answer = await outbound.send(
        "POST",
        endpoint.url,
        allowed=Allowed(settings.outbound_allow),
        headers=signing.headers(secrets, event_id, now, body),
        body=body,
    )
    return answer.status


async def _mail(db: Database, settings: Settings, row: DeliveryRow, now: int) -> None:
    if settings.smtp_url is None:
        raise Undeliverable(
            "This server has no mail server to send with. Its operator can name one "
            "(TUNESMITH_SMTP_URL); then send it again."
        )
    with db.read() as conn:
        job = jobs.get_any(conn, row.job_id)
    if job is None:
        raise Undeliverable("The job was deleted.")
    url = settings.smtp_url.get_secret_value()
    server = mail.Server.parse(url, starttls=settings.smtp_starttls)
    text = letter(job, row.event_type)
    made = mail.message(
        sender=settings.smtp_from,
        to=row.target,
        subject=text.subject,
        text=text.text,
        message_id=row.id,
        now=now,
    )
    await mail.send(server, made)
