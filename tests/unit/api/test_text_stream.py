"""What is shown is the text itself, whatever pieces it arrives in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers

from tests.tiny_base import SPECIAL, tiny_tokenizer
from tunesmith.api.text_stream import TextStream, TokenBytes
from tunesmith.serve.protocol import TokenLogprob

MIXED = (
    "na\u00efve \u4f60\u597d \U0001f469\u200d\U0001f680 \u0928\u092e\u0938\u094d\u0924\u0947 done"
)


def sentencepiece_tokenizer() -> Tokenizer:
    """Spaces as U+2581, unknown characters as bytes, first space of a text dropped (Llama 2)."""
    pieces = [
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "\u2581",
        *"abcdefgh",
        "\u2581a",
    ]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: number for number, piece in enumerate(pieces)},
            [("\u2581", "a")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


TOKENIZERS = {"byte level": tiny_tokenizer(), "sentencepiece": sentencepiece_tokenizer()}


def show(
    tokenizer: Tokenizer, ids: list[int], sizes: list[int], stop: list[str] | None = None
) -> tuple[list[str], TextStream]:
    """The pieces that come out when `ids` are pushed in groups of `sizes` (repeated)."""
    stream = TextStream(tokenizer, stop or [])
    pieces, start = [], 0
    while start < len(ids):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(stream.push(ids[start : start + size]).text)
        start += size
    return [*pieces, stream.flush().text], stream


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=5)


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40), sizes=SIZES)
def test_any_split_gives_the_text(kind: str, text: str, sizes: list[int]) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(text).ids
    pieces, _ = show(tokenizer, ids, sizes)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_split_character_waits_for_its_last_byte(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(MIXED).ids
    assert len(ids) > len(MIXED)
    pieces, _ = show(tokenizer, ids, [1])
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == MIXED


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(len(SPECIAL), 400), max_size=80), sizes=SIZES)
def test_arbitrary_ids_decode_as_a_whole(ids: list[int], sizes: list[int]) -> None:
    """Also bytes that are no UTF-8, which an untrained model writes."""
    tokenizer = tiny_tokenizer()
    pieces, _ = show(tokenizer, ids, sizes)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=False)


def test_endless_noise_is_shown_in_time() -> None:
    tokenizer = tiny_tokenizer()
    stray = next(i for i in range(512) if TokenBytes(tokenizer)(i) == b"\x9f")
    pieces, _ = show(tokenizer, [stray] * 300, [1])
    assert "".join(pieces) == "\ufffd" * 300
    assert pieces[-1] != "".join(pieces)


def test_special_tokens_have_no_text() -> None:
    tokenizer = tiny_tokenizer()
    ids = [*tokenizer.encode("one").ids, SPECIAL.index("<|user|>"), *tokenizer.encode(" two").ids]
    assert "".join(show(tokenizer, ids, [1])[0]) == "one two"


@settings(max_examples=300, deadline=None)
@given(
    text=st.text("abc ", max_size=30),
    stop=st.lists(st.text("abc ", min_size=1, max_size=4), min_size=1, max_size=4),
    sizes=SIZES,
)
def test_stop_strings_cut_alike_in_any_split(text: str, stop: list[str], sizes: list[int]) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode(text).ids
    # By definition: read character by character, cut where the first stop string is complete.
    for end in range(1, len(text) + 1):
        starts = [end - len(item) for item in stop if text[:end].endswith(item)]
        if starts:
            expected = text[: min(starts)]
            break
    else:
        expected = text
    pieces, stream = show(tokenizer, ids, sizes, stop)
    assert "".join(pieces) == expected
    assert stream.stopped == (expected != text)


def test_text_that_may_begin_a_stop_string_is_held_back_and_no_more() -> None:
    tokenizer = tiny_tokenizer()
    stream = TextStream(tokenizer, ["END"])
    assert stream.push(tokenizer.encode("so E").ids).text == "so "
    assert stream.push(tokenizer.encode("x").ids).text == "Ex"
    assert stream.push(tokenizer.encode("EN").ids).text == ""
    assert stream.flush().text == "EN"
    assert not stream.stopped


def test_nothing_follows_a_stop_string() -> None:
    tokenizer = tiny_tokenizer()
    stream = TextStream(tokenizer, ["\n"])
    assert stream.push(tokenizer.encode("a\nb").ids).text == "a"
    assert stream.push(tokenizer.encode("c").ids).text == ""
    assert stream.flush().text == ""
    assert stream.stopped


def entries(ids: list[int]) -> list[TokenLogprob]:
    return [TokenLogprob(-float(place), [(token, -0.5)]) for place, token in enumerate(ids)]


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.sampled_from("ab \u4f60\u00ef"), max_size=20), sizes=SIZES)
def test_log_probabilities_come_with_the_text_they_belong_to(text: str, sizes: list[int]) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode(text).ids
    stream = TextStream(tokenizer, ["\u4f60b"])
    shown, tokens, start, turn = "", [], 0, 0
    while start < len(ids):
        size = sizes[turn % len(sizes)]
        piece = stream.push(ids[start : start + size], entries(ids)[start : start + size])
        shown, tokens = shown + piece.text, [*tokens, *piece.tokens]
        start, turn = start + size, turn + 1
    piece = stream.flush()
    shown, tokens = shown + piece.text, [*tokens, *piece.tokens]
    assert [token.logprob for token in tokens] == [-float(i) for i in range(len(tokens))]
    spelled = b"".join(token.data for token in tokens).decode(errors="replace")
    # A token may reach past the cut; none may begin behind it.
    assert spelled.startswith(shown)
    if tokens and stream.stopped:
        assert len(b"".join(token.data for token in tokens[:-1])) < len(shown.encode())
    elif not stream.stopped:
        assert spelled == shown


def test_tokens_show_their_bytes_and_alternatives() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode("\u4f60").ids
    stream = TextStream(tokenizer, [])
    tokens = stream.push(ids, entries(ids)).tokens
    assert b"".join(token.data for token in tokens) == "\u4f60".encode()
    assert tokens[0].token == "\ufffd"
    assert tokens[0].top[0].data == tokens[0].data
    assert tokens[0].top[0].logprob == -0.5


def test_bytes_of_tokens() -> None:
    piece = TokenBytes(sentencepiece_tokenizer())
    assert piece(1 + 0xE4) == b"\xe4"
    assert piece(266) == b" a"
    byte_level = TokenBytes(tiny_tokenizer())
    assert byte_level(SPECIAL.index("<|end|>")) == b"<|end|>"
    assert byte_level(100_000) == b""


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        TextStream(tiny_tokenizer(), [""])
