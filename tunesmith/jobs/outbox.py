"""Word of a job's end: written in the transaction that ends it, delivered later, at least once.

What is not taken is tried again with growing pauses; what nobody took within the time that the
settings give it is dead: it stays in the log, with the reason, and can be sent again by hand.
"""

from __future__ import annotations

import hashlib

import sqlalchemy as sa

from tunesmith.config import Settings
from tunesmith.errors import BadRequest
from tunesmith.ids import Rng
from tunesmith.jobs import signing
from tunesmith.jobs.states import Status
from tunesmith.ops import mail
from tunesmith.store.repo import notices, outbox, webhook_endpoints
from tunesmith.store.repo.jobs import JobRow
from tunesmith.store.repo.outbox import Channel, DeliveryRow

# What there can be word of.
EVENT_TYPES = tuple(
    f"fine_tuning.job.{status}" for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
)
# The pair of a job's metadata that names who wants an e-mail at its end, separated by commas.
EMAIL_KEY = "notify_email"
MAX_JOB_EMAILS = 5
LONGEST_PAUSE_S = 4 * 3600.0
GROWTH = 3.0
KEEP_S = 30 * 24 * 3600


def job_ended(conn: sa.Connection, job: JobRow, status: Status, now: int) -> None:
    """Notes whom to tell. Needs the write transaction in which the job ends."""
    event_type = f"fine_tuning.job.{status}"
    targets: list[tuple[Channel, str]] = [
        ("webhook", endpoint.id)
        for endpoint in webhook_endpoints.of_project(conn, job.project_id)
        if event_type in endpoint.event_types
    ]
    emails = [*notices.get(conn, job.project_id).emails, *job_emails(job.metadata)]
    targets += [("email", address) for address in dict.fromkeys(emails)]
    event_id = signing.event_id_of(job.id, event_type)
    for channel, target in targets:
        outbox.insert(
            conn,
            DeliveryRow(
                id=_delivery_id(event_id, channel, target),
                project_id=job.project_id,
                event_id=event_id,
                event_type=event_type,
                job_id=job.id,
                channel=channel,
                target=target,
                created_at=now,
                since=now,
                due_at=now,
            ),
        )


def check_emails(settings: Settings, addresses: list[str], param: str) -> None:
    """Raises BadRequest for what is no address, or one that this server does not write to."""
    for address in addresses:
        if not mail.is_address(address):
            raise BadRequest(
                f"Invalid '{param}': '{address:.80}' is no e-mail address.", param=param
            )
        domain = address.rpartition("@")[2].lower()
        allowed = [name.lower() for name in settings.email_domains]
        if allowed and domain not in allowed:
            raise BadRequest(
                f"Invalid '{param}': this server sends e-mail to {', '.join(allowed)} only "
                "(TUNESMITH_EMAIL_DOMAINS).",
                param=param,
            )


def check_job_emails(settings: Settings, metadata: dict[str, str] | None) -> None:
    """Of a job that is asked for. Raises BadRequest."""
    given = (metadata or {}).get(EMAIL_KEY)
    if given is None:
        return
    param = f"metadata.{EMAIL_KEY}"
    addresses = [address.strip() for address in given.split(",")]
    if len(addresses) > MAX_JOB_EMAILS:
        raise BadRequest(
            f"Invalid '{param}': at most {MAX_JOB_EMAILS} addresses, separated by commas.",
            param=param,
        )
    check_emails(settings, addresses, param)


def job_emails(metadata: dict[str, str] | None) -> list[str]:
    """The addresses in a job's metadata; what is no address is left out."""
    given = (metadata or {}).get(EMAIL_KEY, "").split(",")
    found = [address.strip() for address in given if mail.is_address(address.strip())]
    return found[:MAX_JOB_EMAILS]


def pause_s(num_attempts: int, first_s: float, rng: Rng) -> float:
    """Until the next attempt after so many: threefold each time, a tenth more or less by chance.

    Chance keeps the deliveries that one outage failed from coming back all at once.
    """
    longest = max(first_s, LONGEST_PAUSE_S)
    # Beyond this exponent the longest pause has long been reached.
    steady = min(first_s * GROWTH ** min(num_attempts - 1, 20), longest)
    return steady * (0.9 + 0.2 * rng.below(1001) / 1000)


def _delivery_id(event_id: str, channel: str, target: str) -> str:
    digest = hashlib.sha256(f"{event_id} {channel} {target}".encode()).hexdigest()
    return f"dlv_{digest[:24]}"
