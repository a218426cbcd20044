from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.mailbox import Mailbox
from tunesmith.ops import mail
from tunesmith.ops.mail import MailError, Server


def hand_in(url: str, *, starttls: bool = False) -> None:
    made = mail.message(
        sender="Tunesmith <ts@example.com>",
        to="a@example.com",
        subject="Fine-tuning é: succeeded",
        text="It is done.\n.\nTruly.\n",
        message_id="dlv_1",
        now=1_800_000_000,
    )
    asyncio.run(mail.send(Server.parse(url, starttls=starttls), made))


def test_a_message_arrives_as_it_was_written() -> None:
    with Mailbox() as box:
        hand_in(box.url)
    [got] = box.messages
    assert got["from"] == "Tunesmith <ts@example.com>"
    assert got["subject"] == "Fine-tuning é: succeeded"
    assert got["message-id"] == "<dlv_1@example.com>"
    assert got["auto-submitted"] == "auto-generated"
    assert got.get_content().replace("\r\n", "\n") == "It is done.\n.\nTruly.\n"  # type: ignore[attr-defined]


def test_the_server_is_told_who_we_are() -> None:
    with Mailbox(login=("ts", "pass-w0rd")) as box:
        hand_in(box.url)
        with pytest.raises(MailError, match="refused our name or password") as caught:
            hand_in(box.url.replace("pass-w0rd", "wrong-one"))
    assert len(box.messages) == 1
    assert "wrong-one" not in caught.value.message
    assert not caught.value.final


def test_a_refused_recipient_is_final_only_if_the_server_says_so() -> None:
    with Mailbox() as box:
        for reply, final in (("550 no such user", True), ("451 try again", False)):
            box.reply = reply
            with pytest.raises(MailError, match=reply[4:]) as caught:
                hand_in(box.url)
            assert caught.value.final is final


def test_a_server_that_is_not_there() -> None:
    with Mailbox() as box:
        url = box.url
    with pytest.raises(MailError, match="did not take"):
        hand_in(url)


def test_nothing_goes_unencrypted_where_encryption_is_asked_for() -> None:
    with Mailbox(login=("ts", "pass-w0rd")) as box:
        with pytest.raises(MailError):
            hand_in(box.url, starttls=True)
        assert box.messages == []


def test_starttls_with_a_certificate_that_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    with Mailbox(login=("ts", "pass-w0rd"), tls=context) as box:
        with pytest.raises(MailError, match=r"(?i)certificate"):
            hand_in(box.url, starttls=True)
        monkeypatch.setenv("SSL_CERT_FILE", str(chain))
        hand_in(box.url, starttls=True)
    assert len(box.messages) == 1


def certificate(directory: Path) -> tuple[Path, Path]:
    """Of "localhost", signed by itself: (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, private = directory / "cert.pem", directory / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return chain, private


@pytest.mark.parametrize("url", ["", "http://a", "smtp://", "smtp://host:port", "localhost:25"])
def test_what_names_no_mail_server(url: str) -> None:
    with pytest.raises(ValueError):
        Server.parse(url, starttls=True)


def test_the_parts_of_a_url() -> None:
    given = "smtp://u%40x:p%2Fw@mail.example.com"
    assert Server.parse(given, starttls=True) == Server(
        "mail.example.com", 587, tls=False, starttls=True, user="u@x", password="p/w"
    )
    assert Server.parse("smtps://h", starttls=True) == Server("h", 465, tls=True, starttls=False)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("a@b.c", True),
        ("first.last+tag@sub.example.com", True),
        ("a@b", True),
        ("a@b.c\n", False),
        ("a@b.c\r\nBcc: d@e.f", False),
        ("A <a@b.c>", False),
        ("a@b.c,d@e.f", False),
        ("@b.c", False),
        ("a@", False),
        ("a@-", False),
        ("x" * 65 + "@b.c", False),
        ("a@" + "b" * 300, False),
    ],
)
def test_addresses(text: str, is_one: bool) -> None:
    assert mail.is_address(text) is is_one
