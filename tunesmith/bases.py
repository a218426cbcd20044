"""What a base model is, read from its directory: config, tokenizer, template, weight headers.

No weight is loaded and torch is not imported, so that registering costs a second and the API can
read it too. Whether the model also computes well is asked by `model/probe.py`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.render import TOKENIZER_FILES, Renderer
from tunesmith.errors import BaseModelError
from tunesmith.ids import Clock
from tunesmith.model.families import OTHER, decoder_config, family_name
from tunesmith.model.nf4_files import is_nf4, is_quantised_otherwise, num_parameters
from tunesmith.model.shapes import linear_shapes

EMBEDDED_NAME = "tunesmith-nano"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# The safetensors format allows a header of at most 100 MB.
MAX_HEADER_BYTES = 100_000_000
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# Heads that do not continue a text.
NOT_CAUSAL = (
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
# Parts of models that also read pictures or sound; their text part is under other names.
OTHER_INPUTS = ("vision_config", "audio_config")
# The same three facts under the names that families without a decoder of ours use.
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
HIDDEN_KEYS = ("hidden_size", "n_embd", "d_model")
VOCAB_KEYS = ("vocab_size",)


@dataclass(frozen=True)
class BaseInfo:
    """A base model as the rest of the system knows it."""

    name: str
    path: Path
    family: str
    """A key of `families.FAMILIES`, or "other"."""
    slow: bool
    """True: no decoder of ours, so it runs through transformers."""
    context_length: int
    """Most tokens of prompt and answer together."""
    hidden_size: int
    num_parameters: int
    vocab_size: int
    fingerprint: str
    """sha256 over config, tokenizer, template and the headers of the weights, in hex."""
    preserves_history: bool
    """False: the template rewrites earlier turns, so a conversation trains turn by turn."""
    has_tools: bool
    created_at: int
    sha256: str | None = None
    """Of a model whose weights were all trained: what its directory is called."""


def embedded_directory() -> Path:
    """Where the base model that comes with the package lies."""
    return Path(__file__).parent / "assets" / "nano"


def describe(directory: Path, name: str, clock: Clock) -> BaseInfo:
    """Reads and checks a Hugging Face model directory.

    Raises BaseModelError, which says what is wrong and what to do, for whatever cannot be tuned
    and served here.
    """
    directory = directory.expanduser().resolve()
    config = _read_config(directory)
    _refuse_unusable(config)
    headers = _read_headers(directory)
    renderer = Renderer.load(directory)
    dimensions = decoder_config(config)
    vocab_size = dimensions.vocab_size if dimensions else _dimension(config, VOCAB_KEYS)
    if renderer.vocab_size > vocab_size:
        raise BaseModelError(
            f"The tokenizer has {renderer.vocab_size} ids, the model only {vocab_size}: they do "
            "not belong together. Copy the tokenizer files of this very model into its directory."
        )
    return BaseInfo(
        name=name,
        path=directory,
        family=family_name(config),
        slow=dimensions is None,
        context_length=dimensions.max_positions if dimensions else _dimension(config, CONTEXT_KEYS),
        hidden_size=dimensions.hidden_size if dimensions else _dimension(config, HIDDEN_KEYS),
        num_parameters=sum(num_parameters(header) for header in headers.values()),
        vocab_size=vocab_size,
        fingerprint=_fingerprint(directory, headers),
        preserves_history=renderer.preserves_history,
        has_tools=renderer.has_tools,
        created_at=int(clock.now()),
    )


def linears(directory: Path) -> list[str] | None:
    """What LoRA adapts, in order; None where only the loaded model can tell.

    Raises BaseModelError.
    """
    dimensions = decoder_config(_read_config(directory))
    return None if dimensions is None else list(linear_shapes(dimensions))


def _read_config(directory: Path) -> dict[str, Any]:
    if not directory.exists():
        raise BaseModelError(f"There is no directory {directory}. Check the path.")
    if directory.is_file():
        advice = "Give the directory of the Hugging Face model that it was made from."
        raise BaseModelError(f"{directory} is a file, not a model directory. {advice}")
    path = directory / "config.json"
    if not path.exists():
        if (directory / "adapter_config.json").exists():
            raise BaseModelError(
                f"{directory} holds an adapter, not a base model. Register the base that its "
                "adapter_config.json names."
            )
        raise BaseModelError(
            f"{directory} has no config.json. Give a Hugging Face model directory: config.json, "
            "tokenizer.json, a chat template and *.safetensors."
        )
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise BaseModelError(f"{path} is not valid JSON ({error}). Copy it again.") from error
    if not isinstance(config, dict):
        raise BaseModelError(f"{path} holds no JSON object. Copy it again.")
    return config


def _refuse_unusable(config: Mapping[str, Any]) -> None:
    """Raises for what no path of ours can run, before anything large is read."""
    architectures = [str(name) for name in config.get("architectures") or []]
    if config.get("is_encoder_decoder") or any(name.endswith(NOT_CAUSAL) for name in architectures):
        raise BaseModelError(
            f"{architectures[0] if architectures else 'This'} is not a causal language model. "
            "Register one that continues text, such as Llama, Qwen or Mistral."
        )
    if other_input := next((key for key in OTHER_INPUTS if config.get(key)), None):
        raise BaseModelError(
            f"{architectures[0] if architectures else 'This'} reads more than text ({other_input} "
            "in config.json). Save its language model on its own, as docs/guide.md shows in "
            "section 5, and register that."
        )
    if is_quantised_otherwise(config):
        raise BaseModelError(
            "The weights are quantised in a form that is not read here. Register the unquantised "
            "model (bf16, fp16 or fp32); `tunesmith base add --quantize nf4` makes it small."
        )
    if family_name(config) != OTHER:
        return
    if is_nf4(config):
        raise BaseModelError(
            "Quantised weights are read only for families with a decoder here, and this one runs "
            "through transformers. Register the unquantised model."
        )
    kind = str(config.get("model_type"))
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        raise BaseModelError(
            f"There is no decoder for {kind!r} here, and transformers is not installed. "
            "Run: pip install 'tunesmith[transformers]'"
        )
    # Looked up as a folder, because importing transformers costs seconds and brings torch.
    known = Path(spec.origin).parent / "models" / kind.replace("-", "_")
    if config.get("auto_map") and not known.is_dir():
        raise BaseModelError(
            f"{kind!r} runs only with code of its own from the model directory (auto_map), which "
            "is never executed here. Use a model type that transformers itself implements."
        )


def _dimension(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    text_config = config.get("text_config")
    for source in (config, text_config if isinstance(text_config, dict) else {}):
        for key in keys:
            value = source.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    raise BaseModelError(
        f"config.json has none of: {', '.join(keys)}. Copy the whole model directory again; where "
        f"the family does not know {keys[0]}, write it into config.json yourself."
    )


def _read_headers(directory: Path) -> dict[str, dict[str, Any]]:
    """File name -> safetensors header, of every file of weights."""
    return {name: _read_header(directory / name) for name in _weight_files(directory)}


def _weight_files(directory: Path) -> list[str]:
    if (directory / SINGLE).is_file():
        return [SINGLE]
    index = directory / INDEX
    if index.exists():
        try:
            shards = json.loads(index.read_bytes())["weight_map"].values()
            names = sorted({str(name) for name in shards})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BaseModelError(f"{index} is not a safetensors index. Copy it again.") from error
        if outside := [name for name in names if Path(name).name != name]:
            raise BaseModelError(f"{index} names the file {outside[0]!r} outside its directory.")
        missing = [name for name in names if not (directory / name).is_file()]
        if missing:
            raise BaseModelError(
                f"{directory} lacks {len(missing)} of {len(names)} weight files, the first is "
                f"{missing[0]}. Finish the download."
            )
        return names
    if any(found for pattern in PICKLED for found in directory.glob(pattern)):
        raise BaseModelError(
            f"{directory} has its weights only as pickled files (*.bin, *.pt), which can run code "
            "when they are opened and are refused. Convert them where you trust them: "
            "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR) writes safetensors."
        )
    others = sorted(path.name for path in directory.glob("*.safetensors"))
    found = f" (it has {others[0]})" if others else ""
    raise BaseModelError(
        f"{directory} has no {SINGLE} and no {INDEX}{found}. "
        "Copy the weights in the Hugging Face layout."
    )


def _read_header(path: Path) -> dict[str, Any]:
    """The header, after checking that the file is as long as the header says."""
    broken = f"{path} is not a whole safetensors file. Download it again."
    with path.open("rb") as file:
        start = file.read(8)
        if start == b"version ":
            raise BaseModelError(f"{path} is only a Git LFS pointer. Run: git lfs pull")
        num_header_bytes = int.from_bytes(start, "little")
        if len(start) < 8 or num_header_bytes > MAX_HEADER_BYTES:
            raise BaseModelError(broken)
        try:
            header = json.loads(file.read(num_header_bytes))
            header.pop("__metadata__", None)
            end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise BaseModelError(broken) from error
    if path.stat().st_size != 8 + num_header_bytes + end:
        raise BaseModelError(broken)
    return dict(header)


def _fingerprint(directory: Path, headers: Mapping[str, dict[str, Any]]) -> str:
    digest = hashlib.sha256()
    for name in ("config.json", "generation_config.json", *TOKENIZER_FILES):
        path = directory / name
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{name} {len(content)}\n".encode() + content)
    for name, header in headers.items():
        size = (directory / name).stat().st_size
        digest.update(f"{name} {size} {json.dumps(header, sort_keys=True)}\n".encode())
    return digest.hexdigest()
