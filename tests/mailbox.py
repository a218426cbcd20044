"""A real SMTP server on loopback that keeps what it takes."""

from __future__ import annotations

import socket
import ssl
from email import message_from_bytes
from email.message import Message
from email.policy import default
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class Mailbox:
    """Names and passwords are asked for where `login` gives them; TLS where there is a context."""

    def __init__(
        self, login: tuple[str, str] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.messages: list[Message] = []
        self.reply = "250 OK"
        """What a recipient is answered with."""
        self._login = login
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        options: dict[str, Any] = {}
        if login is not None:
            options = {"authenticator": self._check, "auth_required": True}
        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            tls_context=tls,
            auth_require_tls=tls is not None,
            **options,
        )

    @property
    def url(self) -> str:
        login = "" if self._login is None else f"{self._login[0]}:{self._login[1]}@"
        return f"smtp://{login}localhost:{self.port}"

    def _check(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        given = data if isinstance(data, LoginPassword) else LoginPassword(b"", b"")
        success = (given.login.decode(), given.password.decode()) == self._login
        return AuthResult(success=success, handled=False)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        if self.reply.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.reply

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content
        assert isinstance(content, bytes)
        self.messages.append(message_from_bytes(content, policy=default))
        return "250 OK"

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()
