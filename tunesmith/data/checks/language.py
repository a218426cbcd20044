"""The language of a text: by its script, and by its most frequent words where that is Latin.

Sure rather than complete: "" where a text is short or mixed. No model and no dependency.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CHARS = 600
MIN_LETTERS = 8
# Different ones, as a word that is repeated says no more than once; and their share of all words,
# more of a text with few: a title in another language does not make the sentence one.
MIN_STOP_WORDS, MIN_SHARE = 4, 1 / 8
FEW_STOP_WORDS, FEW_SHARE = 3, 1 / 2

# Single letters are words of many languages, and letters in all.
WORD = re.compile(r"[^\W\d_]{2,}")
# Names, addresses and entities are in no language.
NO_WORDS = re.compile(r"https?://\S+|[@#]\w+|&#?\w+;")
NO_WORDS_SIGNS = ("@", "#", "&", "://")
# Where the prompt speaks of a language, answering in it is what was asked.
OF_LANGUAGES = re.compile(
    r"(?i)\b(?:translat|\u00fcbersetz|traduc|traduis|traduire|tradui|vertaal|in english\b|english\b"
    r"|german\b|french\b|spanish\b|italian\b|portuguese\b|dutch\b|polish\b|swedish\b|turkish\b"
    r"|chinese\b|mandarin\b|japanese\b|korean\b|russian\b|greek\b|arabic\b|hebrew\b|hindi\b|thai\b"
    r"|latin\b)"
)
SCRIPTS = (
    ("ja", "\u3040", "\u30ff"),
    ("ko", "\uac00", "\ud7a3"),
    ("zh", "\u4e00", "\u9fff"),
    ("ru", "\u0400", "\u04ff"),
    ("el", "\u0370", "\u03ff"),
    ("ar", "\u0600", "\u06ff"),
    ("he", "\u0590", "\u05ff"),
    ("hi", "\u0900", "\u097f"),
    ("th", "\u0e00", "\u0e7f"),
)
STOP_WORDS = {
    "en": "the of and to in is that it for was on are with as be this have from or by not what"
    " you your which would can will there their they i my me do how an at we please could when"
    " does has if but so about than then",
    "de": "der die das und ist nicht ich sie ein eine zu den mit von dem auf im fuer f\u00fcr es"
    " auch wie dass sich bei einen einem wir werden wird k\u00f6nnen kann mein ihre haben oder aus"
    " nach noch wenn bitte",
    "fr": "le la les des et est une un que qui dans pour pas vous je du ce il ne sur avec nous"
    " sont votre mon plus au aux cette mais ou comme peut tout faire",
    "es": "el la los las de que y en un una es por con para no se su lo como del al mi pero"
    " m\u00e1s este esta est\u00e1 tiene puede muy usted hay cuando",
    "it": "il lo la gli le di che e un una per non con del della sono mi si come nel alla pi\u00f9"
    " questo questa ha ho anche ma essere pu\u00f2 dei",
    "pt": "o os as de que e um uma para n\u00e3o com em do da no na por mais como eu"
    " voc\u00ea est\u00e1 seu sua ao s\u00e3o foi mas isso pode",
    "nl": "de het een en van ik is niet dat op te in voor met zijn je aan er ook maar om bij als"
    " wat kan naar dan nog uit deze wordt",
    "pl": "nie to si\u0119 na jest i w z do \u017ce jak co ale tak po czy ju\u017c od mnie dla",
    "sv": "och att det som \u00e4r en p\u00e5 f\u00f6r inte med av jag till den har ett kan om du",
    "tr": "bir ve bu i\u00e7in ne de da ile \u00e7ok ben var daha gibi ama olarak"
    " nas\u0131l m\u0131",
}
LANGUAGES_OF = {
    word: tuple(name for name, words in STOP_WORDS.items() if word in words.split())
    for words in STOP_WORDS.values()
    for word in words.split()
}
ALL_STOP_WORDS = frozenset(LANGUAGES_OF)
NAMES = ("", *(name for name, _, _ in SCRIPTS), *STOP_WORDS)
NUMBERS = {name: number for number, name in enumerate(NAMES)}


def language(text: str) -> str:
    """A two-letter code, or "" where it is not clear."""
    text = text[:MAX_CHARS]
    if not text.isascii():
        found = _by_script(text)
        if found is not None:
            return found
    if any(sign in text for sign in NO_WORDS_SIGNS):
        text = NO_WORDS.sub(" ", text)
    words = set(WORD.findall(text.lower()))
    counts = Counter(name for word in words & ALL_STOP_WORDS for name in LANGUAGES_OF[word])
    if not counts:
        return ""
    (best, most), *rest = counts.most_common(2)
    second = rest[0][1] if rest else 0
    share = most / len(words)
    enough = most >= MIN_STOP_WORDS and share >= MIN_SHARE
    enough = enough or (most >= FEW_STOP_WORDS and share >= FEW_SHARE)
    return best if enough and most >= 2 * second else ""


def of_pair(asked: str, answer: str) -> tuple[str, str]:
    """The languages of a prompt and its answer; "" for the answer that was asked to change it."""
    if OF_LANGUAGES.search(asked[:MAX_CHARS]):
        return language(asked), ""
    return language(asked), language(answer)


def _by_script(text: str) -> str | None:
    """The language of a script that is not Latin; None where the letters are mostly Latin."""
    letters = [char for char in text if char.isalpha()]
    if len(letters) < MIN_LETTERS // 2:
        return ""
    counts = Counter(name for char in letters for name, low, high in SCRIPTS if low <= char <= high)
    if not counts or counts.total() * 2 < len(letters):
        return None
    # Japanese is written with Chinese characters between its own.
    return "ja" if counts["ja"] * 10 >= counts.total() else counts.most_common(1)[0][0]


# Rows with a clear language, before a share of them says anything.
MIN_ROWS = 20
# Above this share of rows, changing the language (or using several) is the task.
TASK_SHARE = 0.3


def mismatches(languages: NDArray[Any]) -> NDArray[np.int64]:
    """The rows whose answer is in another language than their prompt."""
    asked, answered = languages >> 8, languages & 255
    both = (asked != 0) & (answered != 0)
    differ = both & (asked != answered)
    if not both.any() or differ.sum() > max(TASK_SHARE * both.sum(), 1):
        return np.empty(0, np.int64)
    return np.flatnonzero(differ)


def minorities(languages: NDArray[Any]) -> tuple[NDArray[np.int64], str]:
    """The rows in another language than nearly all others, and that language's name."""
    asked, answered = languages >> 8, languages & 255
    spoken = np.where(asked != 0, asked, answered)
    clear = spoken[spoken != 0]
    if len(clear) < MIN_ROWS:
        return np.empty(0, np.int64), ""
    most = int(np.bincount(clear).argmax())
    others = np.flatnonzero((spoken != 0) & (spoken != most))
    if len(others) > TASK_SHARE * len(clear):
        return np.empty(0, np.int64), ""
    return others, NAMES[most]
