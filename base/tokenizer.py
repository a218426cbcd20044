"""Trains the byte-level BPE (4096 entries) and writes every tokenizer file of the model.

Digits stand alone, so a small model sees numbers as digits and not as a thousand rare tokens.
The first sixteen ids are special: padding, document ends, the roles of the chat template and six
spares.  The chat template is `chat_template.jinja` in this folder, copied as it is.

Left out: Unicode normalisation (bytes are enough) and adding <|bos|> by itself (the template
writes it).

    python -m base.tokenizer --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from base.corpus import ASSETS, HERE, Corpus

VOCAB_SIZE = 4096
CONTEXT = 1024
SPECIAL = [
    "<|pad|>",
    "<|bos|>",
    "<|eos|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<|end|>",
    "<|tools|>",
    "<|tool_call|>",
    *(f"<|reserved_{i}|>" for i in range(6)),
]


def sample(corpus: Corpus, share: float) -> Iterator[str]:
    """A part of the first pass, without the special tokens (they are never split or merged)."""
    rng = random.Random(1)
    for documents in corpus.build(0).values():
        for text in documents:
            if rng.random() < share:
                for special in SPECIAL:
                    text = text.replace(special, "\n")
                yield text


def train(texts: Iterator[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def write(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>"}
    spare = [token for token in SPECIAL if token not in named.values()]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        **named,
        "additional_special_tokens": spare,
        "added_tokens_decoder": {
            str(i): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for i, token in enumerate(SPECIAL)
        },
    }
    special_map = {**named, "additional_special_tokens": spare}
    for name, content in (("tokenizer_config", config), ("special_tokens_map", special_map)):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    shutil.copyfile(HERE / "chat_template.jinja", folder / "chat_template.jinja")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--share", type=float, default=0.3, help="part of the first pass to read")
    args = parser.parse_args()
    texts = list(sample(Corpus(args.data), args.share))
    tokenizer = train(iter(texts))
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == list(range(len(SPECIAL)))
    write(tokenizer, ASSETS)
    tokens = sum(len(one) for one in tokenizer.encode_batch_fast(texts[:2000]))
    print(f"{len(texts):,} texts, {sum(map(len, texts[:2000])) / tokens:.2f} characters per token")


if __name__ == "__main__":
    main()
