"""E-mail through the operator's SMTP server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from urllib.parse import unquote, urlsplit

import aiosmtplib

from tunesmith.errors import TunesmithError

LIMIT_S = 30.0
MAX_ADDRESS_CHARS = 254
# Keeps out what is no address, and every header trick; the receiving server knows the rest.
ADDRESS = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?"
)


class MailError(TunesmithError):
    """A message was not taken by the server. `final`: it never will be."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@dataclass(frozen=True)
class Server:
    """Where mail is handed in, out of `smtp://user:password@host:587` or `smtps://...`."""

    host: str
    port: int
    tls: bool
    """From the first byte on (smtps)."""
    starttls: bool
    user: str | None = None
    password: str | None = None

    @staticmethod
    def parse(url: str, *, starttls: bool) -> Server:
        """Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("it must look like smtp://user:password@host:587")
        tls = parts.scheme == "smtps"
        return Server(
            host=parts.hostname,
            port=parts.port or (465 if tls else 587),
            tls=tls,
            starttls=starttls and not tls,
            user=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
        )


def is_address(text: str) -> bool:
    return len(text) <= MAX_ADDRESS_CHARS and ADDRESS.fullmatch(text) is not None


def message(
    *, sender: str, to: str, subject: str, text: str, message_id: str, now: int
) -> EmailMessage:
    """A plain-text message. The same `message_id` lets a mailbox drop a second copy."""
    made = EmailMessage()
    made["From"] = sender
    made["To"] = to
    made["Subject"] = subject
    made["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    made["Message-ID"] = f"<{message_id}@{sender.rpartition('@')[2].rstrip('>')}>"
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(text)
    return made


async def send(server: Server, mail: EmailMessage) -> None:
    """Hands one message in. Raises MailError, without the password in its text."""
    try:
        await aiosmtplib.send(
            mail,
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.tls,
            # True: no message and no password leaves this machine unencrypted.
            start_tls=server.starttls,
            timeout=LIMIT_S,
        )
    except aiosmtplib.SMTPRecipientsRefused as error:
        refusals = error.recipients
        text = "; ".join(f"{one.code} {one.message}" for one in refusals)
        final = all(one.code >= 500 for one in refusals)
        raise MailError(f"The mail server refused the recipient: {text}", final=final) from None
    except aiosmtplib.SMTPAuthenticationError as error:
        raise MailError(f"The mail server refused our name or password ({error.code}).") from None
    except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
        raise MailError(f"The mail server did not take the message: {error}") from None
