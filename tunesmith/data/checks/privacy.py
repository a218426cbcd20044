"""Secrets and personal data in texts, by their form.

A text is first searched for what every match must contain, which is quick; patterns run only where
that is found. Names and addresses of people have no form and are not looked for.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """Where in a text something private stands."""

    start: int
    end: int
    code: str
    """"secret" or "personal_data"."""
    kind: str
    """Such as "e-mail address"."""


# (what every match contains, what it is, its form)
SECRETS = tuple(
    (needle, kind, re.compile(form))
    for needle, kind, form in (
        ("sk-", "OpenAI-style key", r"\bsk-(?:proj-|ant-|svcacct-|or-)?[A-Za-z0-9_-]{20,}"),
        ("AKIA", "AWS access key id", r"\bAKIA[0-9A-Z]{16}\b"),
        ("ASIA", "AWS access key id", r"\bASIA[0-9A-Z]{16}\b"),
        ("ghp_", "GitHub token", r"\bghp_[A-Za-z0-9]{36}\b"),
        ("gho_", "GitHub token", r"\bgho_[A-Za-z0-9]{36}\b"),
        ("ghs_", "GitHub token", r"\bghs_[A-Za-z0-9]{36}\b"),
        ("github_pat_", "GitHub token", r"\bgithub_pat_[A-Za-z0-9_]{40,}"),
        ("glpat-", "GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
        ("xox", "Slack token", r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
        ("hooks.slack.com", "Slack webhook", r"https://hooks\.slack\.com/services/[A-Za-z0-9/]{20,}"),
        ("AIza", "Google API key", r"\bAIza[A-Za-z0-9_-]{35}"),
        ("ya29.", "Google OAuth token", r"\bya29\.[A-Za-z0-9_-]{20,}"),
        ("sk_live_", "Stripe key", r"\bsk_live_[A-Za-z0-9]{16,}"),
        ("rk_live_", "Stripe key", r"\brk_live_[A-Za-z0-9]{16,}"),
        ("SG.", "SendGrid key", r"\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
        ("hf_", "Hugging Face token", r"\bhf_[A-Za-z0-9]{30,}\b"),
        ("npm_", "npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
        ("pypi-", "PyPI token", r"\bpypi-[A-Za-z0-9_-]{50,}"),
        ("dop_v1_", "DigitalOcean token", r"\bdop_v1_[a-f0-9]{64}\b"),
        ("eyJ", "JSON web token", r"\beyJ[\w-]{10,4096}\.eyJ[\w-]{10,4096}\.[\w-]{10,}"),
        ("PRIVATE KEY", "private key", r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----"),
        ("AccountKey=", "Azure storage key", r"\bAccountKey=[A-Za-z0-9+/=]{40,}"),
        ("://", "password in an address", r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@]{1,64}:[^\s:/@]{6,128}@"),
    )
)  # fmt: skip
NEEDLES = tuple(needle for needle, _, _ in SECRETS)
ASSIGNED_NAMES = ("key", "secret", "token", "passw", "pwd")
ASSIGNED = re.compile(
    r"(?i)\b[\w-]{0,20}(?:api[_-]?key|secret|token|passw(?:or)?d|pwd)[\w-]{0,10}[\"']?\s{0,3}"
    r"[:=]\s{0,3}[\"']?([A-Za-z0-9+/_.~$%^&*!-]{12,128})"
)
# Of random letters and digits, 16 or more; words and identifiers stay below.
MIN_ENTROPY_BITS = 3.5

EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+"
)
RESERVED = re.compile(r"[@.](?:example\.(?:com|org|net)|[\w-]+\.(?:example|test|invalid))$")
DIGITS = re.compile(r"\d[\d .()/-]{5,}\d")
PHONE = re.compile(
    r"(?<![\w.+/-])(?:"
    r"\+\d{1,3}[ .-]?(?:\(\d{1,4}\)|\d{1,4})(?:[ .-]?\d{2,4}){2,4}"
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}"
    r"|(?:1[ .-])?\d{3}[-.]\d{3}[-.]\d{4}"
    r"|0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,4}"
    r")(?![\w-]|\.\d)"
)
# In one run or in the groups that cards show, with one separator; never a term of a calculation.
CARD = re.compile(
    r"(?<![\w.,<>=+*/%^$-])(?<![=+*/%^$] )"
    r"(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{4}([ -])\d{6}\2\d{4,5})"
    r"(?![\w-]|[.,]\d| ?[=+*/%^<>])"
)
# (first digits from, to, lengths) of the networks.
ISSUERS = (
    ("4", "4", (13, 16, 19)),
    ("51", "55", (16,)),
    ("2221", "2720", (16,)),
    ("34", "34", (15,)),
    ("37", "37", (15,)),
    ("300", "305", (14, 16)),
    ("36", "36", (14, 16)),
    ("38", "39", (14, 16)),
    ("3528", "3589", (16,)),
    ("6011", "6011", (16, 19)),
    ("644", "659", (16, 19)),
    ("62", "62", (16, 17, 18, 19)),
)
IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
IBAN_START = re.compile(r"[A-Z]{2}\d{2} ?[A-Z0-9]{4}")
IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")


def may_hold(text: str) -> bool:
    """False where neither the text nor a part of it holds anything private; quick."""
    lowered = text.lower()
    return (
        any(needle in text for needle in NEEDLES)
        or any(name in lowered for name in ASSIGNED_NAMES)
        or "@" in text
        or DIGITS.search(text) is not None
        or IBAN_START.search(text) is not None
    )


def spans(text: str) -> list[Span]:
    """What in the text looks like a secret or personal data, in order and without overlaps."""
    found = sorted((*_secrets(text), *_personal(text)), key=lambda each: (each.start, -each.end))
    result: list[Span] = []
    for span in found:
        if not result or span.start >= result[-1].end:
            result.append(span)
    return result


def _secrets(text: str) -> Iterator[Span]:
    for needle, kind, form in SECRETS:
        if needle in text:
            for match in form.finditer(text):
                yield Span(*match.span(), "secret", kind)
    lowered = text.lower()
    if any(name in lowered for name in ASSIGNED_NAMES):
        for match in ASSIGNED.finditer(text):
            if _is_random(match[1]):
                yield Span(*match.span(1), "secret", "password or key")


def _is_random(value: str) -> bool:
    classes = [str.isdigit, str.islower, str.isupper]
    mixed = sum(any(map(test, value)) for test in classes) >= 2 and any(map(str.isdigit, value))
    counts = Counter(value)
    entropy = -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())
    return mixed and entropy >= min(MIN_ENTROPY_BITS, math.log2(len(value)) * 0.85)


def _personal(text: str) -> Iterator[Span]:
    if "@" in text:
        for match in EMAIL.finditer(text):
            if not RESERVED.search(match[0].lower()):
                yield Span(*match.span(), "personal_data", "e-mail address")
    if DIGITS.search(text):
        yield from _numbers(text)
    if IBAN_START.search(text):
        for match in IBAN.finditer(text):
            if _is_iban(match[0]):
                yield Span(*match.span(), "personal_data", "bank account (IBAN)")


def _numbers(text: str) -> Iterator[Span]:
    for match in CARD.finditer(text):
        if _is_card(match[0]):
            yield Span(*match.span(), "personal_data", "card number")
    for match in PHONE.finditer(text):
        if 9 <= sum(map(str.isdigit, match[0])) <= 15:
            yield Span(*match.span(), "personal_data", "phone number")
    for match in IP.finditer(text):
        if _is_public(match[0]):
            yield Span(*match.span(), "personal_data", "IP address")


def _is_card(text: str) -> bool:
    """Luhn's check digit, and the first digits and the length of a card network."""
    plain = "".join(char for char in text if char.isdecimal() and char.isascii())
    if len(set(plain)) < 2 or not any(
        len(plain) in lengths and low <= plain[: len(low)] <= high for low, high, lengths in ISSUERS
    ):
        return False
    digits = [int(char) for char in plain]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """ISO 13616: the account moved before the country, letters as 10 to 35, modulo 97 is 1."""
    plain = text.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def _is_public(text: str) -> bool:
    try:
        return ipaddress.IPv4Address(text).is_global
    except ValueError:
        return False
