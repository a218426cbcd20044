"""JSON that people and programs write almost right, made right: a pure function of a text.

Mended is only what has one reading: typographic or single quotes around strings, trailing commas,
Python's True, False and None, raw line breaks inside strings. Strings in plain quotes keep every
character. Whoever calls parses the result; a wrong guess does not parse.
"""

from __future__ import annotations

import re

TYPOGRAPHIC = "typographic_quotes"
INVALID = "invalid_json"

DOUBLE = '"\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb'
SINGLE = "'\u2018\u2019\u201a\u201b\u2032"
PLAIN = "\"'"
WORDS = {"True": "true", "False": "false", "None": "null"}
# A string as it should be, followed by what may follow a string.
STRING = re.compile(r'"(?:[^"\\\x00-\x1f]++|\\.)*+"(?=\s*+(?:[,:}\]]|\Z))')
AFTER_STRING = re.compile(r"\s*+(?:[,:}\]]|\Z)")
AFTER_COMMA = re.compile(r"\s*+(?:[}\]]|\Z)")
# Nothing to look at: numbers, literals, brackets, blanks.
DULL = re.compile(f"[^,{DOUBLE}{SINGLE}A-Z]++|[A-Z]\\w*+")
QUOTES = {quote: DOUBLE if quote in DOUBLE else SINGLE for quote in DOUBLE + SINGLE}
CLOSING = {
    quotes: re.compile(rf"\\.|[{re.escape(quotes)}]", re.DOTALL) for quotes in (DOUBLE, SINGLE)
}
CONTROL = re.compile(r"[\x00-\x1f]")
ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def mend(text: str) -> tuple[str, set[str]]:
    """The text as JSON, and the codes of what was mended in it.

    Linear in the text. What cannot be read as a string is left as it is, and will not parse.
    """
    parts: list[str] = []
    codes: set[str] = set()
    place = 0
    while place < len(text):
        char = text[place]
        if char in QUOTES:
            string, end, code = _string(text, place)
            codes |= {code} - {""}
        elif char == "," and AFTER_COMMA.match(text, place + 1):
            string, end = "", place + 1
            codes.add(INVALID)
        else:
            found = DULL.match(text, place)
            end = found.end() if found else place + 1
            string = WORDS.get(text[place:end], text[place:end])
            codes |= {INVALID} if text[place:end] in WORDS else set()
        parts.append(string)
        place = end
    return "".join(parts), codes


def _string(text: str, start: int) -> tuple[str, int, str]:
    """(the string in plain quotes, where it ends, what was mended) for one that begins here."""
    right = STRING.match(text, start)
    if right:
        return right[0], right.end(), ""
    quotes = QUOTES[text[start]]
    for found in CLOSING[quotes].finditer(text, start + 1):
        if len(found[0]) == 1 and AFTER_STRING.match(text, found.end()):
            typographic = text[start] not in PLAIN or found[0] not in PLAIN
            inside = _escape(text[start + 1 : found.start()])
            return f'"{inside}"', found.end(), TYPOGRAPHIC if typographic else INVALID
    return text[start:], len(text), ""


def _escape(inside: str) -> str:
    """The inside of a string with what plain quotes ask to be escaped; escapes stay."""
    inside = re.sub(r"(\\.)|\"", lambda found: found[1] or '\\"', inside, flags=re.DOTALL)
    inside = inside.replace("\\'", "'")
    return CONTROL.sub(lambda found: ESCAPES.get(found[0], f"\\u{ord(found[0]):04x}"), inside)
