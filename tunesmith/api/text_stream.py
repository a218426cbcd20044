"""From generated ids to text that may be shown: detokenising, stop strings, token bytes.

Nothing that is emitted is ever taken back: a character split over tokens waits for its last
byte, and text that could be the beginning of a stop string waits until it is not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from tokenizers import Tokenizer

from tunesmith.serve.protocol import TokenLogprob

REPLACEMENT = "\ufffd"
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Ids that may wait for the rest of a character; more than this is noise, not a character.
MAX_WAITING_IDS = 64


@dataclass(frozen=True)
class TokenText:
    """A token as the API shows it: `token` is `data` as text, for a split character inexactly."""

    token: str
    data: bytes
    logprob: float


@dataclass(frozen=True)
class ChosenToken(TokenText):
    top: tuple[TokenText, ...]


@dataclass(slots=True)
class Piece:
    """What became showable: text, and the log probabilities of the tokens it came from."""

    text: str = ""
    tokens: tuple[ChosenToken, ...] = ()


class TokenBytes:
    """The bytes each id stands for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._byte_level = "ByteLevel" in repr(tokenizer.decoder)
        self._added = {
            number: token.content for number, token in tokenizer.get_added_tokens_decoder().items()
        }

    def __call__(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode()
        token = self._tokenizer.id_to_token(token_id)
        if token is None:  # an id that only pads the vocabulary
            return b""
        if self._byte_level:
            alphabet = byte_alphabet()
            return bytes(alphabet[char] for char in token if char in alphabet)
        if found := BYTE_TOKEN.fullmatch(token):
            return bytes([int(found[1], 16)])
        return token.replace("\u2581", " ").encode()  # SentencePiece writes a space so


@cache
def byte_alphabet() -> dict[str, int]:
    """The character that byte-level BPE (GPT-2) writes for each byte, inverted."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


class Detokenizer:
    """Decodes ids as they come. Joined, the pieces equal decoding all ids at once.

    A window of ids is decoded twice, without and with the new ones, because what an id adds
    depends on its neighbours (leading spaces, bytes of one character). Special tokens have no text,
    but for those among `shown_ids`.
    """

    def __init__(self, tokenizer: Tokenizer, shown_ids: frozenset[int] = frozenset()) -> None:
        self._tokenizer = tokenizer
        self._special = {
            number
            for number, token in tokenizer.get_added_tokens_decoder().items()
            if token.special and number not in shown_ids
        }
        self._shown = {number: tokenizer.id_to_token(number) or "" for number in shown_ids}
        self._window: list[int] = []
        self._num_settled = 0  # ids of the window whose text is out completely
        self._num_emitted = 0  # characters of the window's text that are out

    def push(self, token_id: int) -> str:
        if token_id in self._special:
            return ""
        if token_id in self._shown:
            before = self.flush()
            self._window, self._num_settled, self._num_emitted = [], 0, 0
            return before + self._shown[token_id]
        self._window.append(token_id)
        text = self._decode(self._window)
        waiting = len(self._window) - self._num_settled
        if text.endswith(REPLACEMENT) and waiting <= MAX_WAITING_IDS:
            return self._emit(text.rstrip(REPLACEMENT))
        new = self._emit(text)
        self._window = self._window[self._num_settled :]
        self._num_settled = len(self._window)
        self._num_emitted = len(self._decode(self._window))
        return new

    def flush(self) -> str:
        """What was still waiting; a character that never came to its end is U+FFFD."""
        return self._emit(self._decode(self._window))

    def _emit(self, text: str) -> str:
        new = text[self._num_emitted :]
        self._num_emitted = max(self._num_emitted, len(text))
        return new

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


class TextStream:
    """The text of one choice: detokenised, and cut before the first stop string.

    After a stop string `stopped` is True and nothing more comes out; the caller then ends the
    choice. Call `flush` once the choice has ended by itself.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: list[str],
        *,
        token_bytes: TokenBytes | None = None,
        shown_ids: frozenset[int] = frozenset(),
    ) -> None:
        if not all(stop):
            raise ValueError("a stop string must not be empty")
        self._detokenizer = Detokenizer(tokenizer, shown_ids)
        self._token_bytes = token_bytes or TokenBytes(tokenizer)
        self._stop = stop
        self._held = ""
        self._num_decoded = 0  # characters that came out of the detokeniser
        self._tokens: list[tuple[int, ChosenToken]] = []  # not out yet, with their first character
        self.stopped = False

    def push(self, token_ids: list[int], logprobs: list[TokenLogprob] | None = None) -> Piece:
        """Takes the next ids, with one log probability each if they were asked for."""
        text = ""
        for place, token_id in enumerate(token_ids):
            if self.stopped:
                break
            if logprobs is not None:
                token = self._describe(token_id, logprobs[place])
                self._tokens.append((self._num_decoded, token))
            text += self._show(self._detokenizer.push(token_id))
        return Piece(text, self._release())

    def flush(self) -> Piece:
        """What was held back. Also this text is searched for stop strings."""
        if self.stopped:
            return Piece()
        text = self._show(self._detokenizer.flush())
        if not self.stopped:
            text, self._held = text + self._held, ""
        return Piece(text, self._release(everything=not self.stopped))

    def _show(self, text: str) -> str:
        """The part of held + new text that can no longer be part of a stop string."""
        self._num_decoded += len(text)
        self._held += text
        found = [(at + len(stop), at) for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            # The stop that is complete first, so that the cut does not depend on the pieces.
            _, cut = min(found)
            self.stopped = True
            shown, dropped = self._held[:cut], self._held[cut:]
            self._held = ""
            self._num_decoded -= len(dropped)
            self._tokens = [item for item in self._tokens if item[0] < self._num_decoded]
            return shown
        cut = len(self._held) - self._num_undecided()
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def _num_undecided(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = min(max(map(len, self._stop), default=1) - 1, len(self._held))
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stop):
                return length
        return 0

    def _release(self, everything: bool = False) -> tuple[ChosenToken, ...]:
        """The tokens whose first character is out."""
        num_shown = self._num_decoded - len(self._held)
        out = [token for start, token in self._tokens if everything or start < num_shown]
        del self._tokens[: len(out)]
        return tuple(out)

    def _describe(self, token_id: int, logprob: TokenLogprob) -> ChosenToken:
        chosen = self._text(token_id, logprob.logprob)
        top = tuple(self._text(other, value) for other, value in logprob.top)
        return ChosenToken(chosen.token, chosen.data, chosen.logprob, top)

    def _text(self, token_id: int, logprob: float) -> TokenText:
        data = self._token_bytes(token_id)
        return TokenText(data.decode(errors="replace"), data, logprob)
