"""A model as a GGUF file, the format of llama.cpp and of what is built on it.

Tensors and settings get the names that llama.cpp reads. Three things differ from Hugging Face's
form: the rows of q and k of Llama are in the order of its own rotation, Gemma's norms are kept with
their one added, and a frequency rule (Llama 3) is a tensor of factors. What llama.cpp would compute
in another way than the model was trained is refused.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.errors import BaseModelError
from tunesmith.model.directory import new_rule
from tunesmith.model.gguf_vocab import Vocabulary, read_vocabulary
from tunesmith.model.load import read_config
from tunesmith.model.merge import MergedWeights

# Option -> GGUF's type of matrices; vectors are always fp32.
TYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
BLOCK = 32
"""Elements that share a scale in q8_0."""


@dataclass(frozen=True)
class Architecture:
    name: str
    """llama.cpp's."""
    permutes: bool = False
    """q and k are kept in the order of the interleaved rotation."""
    adds_one: bool = False
    """Norms multiply by 1 + weight; llama.cpp keeps the sum."""
    window_period: int | None = None
    """Every how many layers one sees everything, the others a window; None: no windows."""


# model_type of config.json -> what llama.cpp runs it as.
ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", permutes=True),
    "mistral": Architecture("llama", permutes=True),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "gemma": Architecture("gemma", adds_one=True),
    "gemma2": Architecture("gemma2", adds_one=True, window_period=2),
    "gemma3_text": Architecture("gemma3", adds_one=True, window_period=6),
    "phi3": Architecture("phi3"),
}


def write_gguf(
    path: Path, base: Path, weights: MergedWeights, kind: str, *, name: str, stop_id: int
) -> None:
    """Writes a model of the kind that `base` is. Raises BaseModelError for what cannot be.

    `kind` is a key of TYPES. One tensor at a time is in memory.
    """
    gguf = library()
    config = read_config(base)
    architecture = _architecture(config)
    writer = gguf.GGUFWriter(path, architecture.name)
    num_rows = weights.tensors[_embedding(weights)].shape[0]
    _describe(writer, config, architecture, name, gguf)
    _add_vocabulary(writer, read_vocabulary(base, num_rows), stop_id)
    plan = _names(gguf, config, architecture, weights)
    factors = _rope_factors(config)
    types = {target: _type(gguf, kind, weights.tensors[source].shape) for target, source in plan}
    writer.add_file_type(getattr(gguf.LlamaFileType, _file_type(kind)))
    if kind == "q8_0":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for target, source in plan:
        _announce(gguf, writer, target, weights.tensors[source].shape, types[target])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for target, source in plan:
        tensor = _as_llama_cpp(source, weights.get(source, torch.float32), config, architecture)
        writer.write_tensor_data(gguf.quants.quantize(tensor.numpy(), types[target]))
    writer.close()


def library() -> Any:
    """The gguf library. Raises BaseModelError where it is not installed."""
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise BaseModelError(
            "Writing GGUF needs the gguf library: pip install 'tunesmith[export]'"
        ) from error


def _architecture(config: Mapping[str, Any]) -> Architecture:
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise BaseModelError(
            f"GGUF is not written for {kind!r}; it is for {', '.join(ARCHITECTURES)}. "
            "Export with --format merged."
        )
    found = ARCHITECTURES[kind]
    scalar = config.get("query_pre_attn_scalar")
    if scalar is not None and scalar != _scale_of_llama_cpp(config):
        raise _differs("the scale of its attention scores", scalar)
    if kind in ("llama", "mistral") and config.get("layer_types") not in (None, []):
        kinds = set(config["layer_types"])
        if kinds != {"full_attention"}:
            raise _differs("layers of several kinds", kinds)
    return found


def _scale_of_llama_cpp(config: Mapping[str, Any]) -> float:
    """The largest Gemma 2 and 3, known by their layers, scale by width, the others by head size."""
    if config["num_hidden_layers"] in (46, 62):
        return float(config["hidden_size"] // config["num_attention_heads"])
    return float(_head_size(config))


def _head_size(config: Mapping[str, Any]) -> int:
    size = config.get("head_dim")
    if size is None and config.get("model_type") in ("qwen3", "gemma", "gemma2", "gemma3_text"):
        size = 128 if config["model_type"] == "qwen3" else 256
    return int(size or config["hidden_size"] // config["num_attention_heads"])


def _describe(
    writer: Any, config: Mapping[str, Any], architecture: Architecture, name: str, gguf: Any
) -> None:
    num_heads, head_size = config["num_attention_heads"], _head_size(config)
    rule = _rule(config)
    writer.add_name(name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(num_heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or num_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    share = rule.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    writer.add_rope_dimension_count(int(head_size * share))
    writer.add_rope_freq_base(rule["rope_theta"])
    kind = rule["rope_type"]
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rule["factor"])
    elif kind not in ("default", "llama3"):
        raise _differs("a rotation rule", kind)
    if (cap := config.get("attn_logit_softcapping")) is not None:
        writer.add_attn_logit_softcapping(cap)
    if (cap := config.get("final_logit_softcapping")) is not None:
        writer.add_final_logit_softcapping(cap)
    if architecture.name == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config["max_position_embeddings"])
    _describe_windows(writer, config, architecture)


def _describe_windows(writer: Any, config: Mapping[str, Any], architecture: Architecture) -> None:
    period, window = architecture.window_period, config.get("sliding_window")
    if period is None or window is None:
        return
    writer.add_sliding_window(window)
    num_layers = config["num_hidden_layers"]
    usual = [bool((layer + 1) % period) for layer in range(num_layers)]
    kinds = config.get("layer_types")
    if kinds and [kind == "sliding_attention" for kind in kinds] != usual:
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in kinds])
    sliding = (config.get("rope_parameters") or {}).get("sliding_attention") or {}
    local = sliding.get("rope_theta") or config.get("rope_local_base_freq")
    if local is not None:
        writer.add_rope_freq_base_swa(local)


def _rule(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotation of the layers that see everything."""
    rule = config.get("rope_parameters") or {}
    rule = rule.get("full_attention") or rule
    rule = {**new_rule(config), **rule}
    return {**rule, "rope_type": rule.get("rope_type") or rule.get("type") or "default"}


def _rope_factors(config: Mapping[str, Any]) -> Any:
    """Llama 3: how much slower each pair of dimensions turns (D/2), as a numpy vector, or None."""
    rule = _rule(config)
    if rule["rope_type"] != "llama3":
        return None
    size = _head_size(config)
    steps = torch.arange(0, size, 2, dtype=torch.float64) / size
    wavelength = 2 * math.pi * rule["rope_theta"] ** steps
    low, high, factor = rule["low_freq_factor"], rule["high_freq_factor"], rule["factor"]
    positions = config.get("original_max_position_embeddings") or rule.get(
        "original_max_position_embeddings", config["max_position_embeddings"]
    )
    blend = ((positions / wavelength - low) / (high - low)).clamp(0.0, 1.0)
    return (1 / ((1 - blend) / factor + blend)).float().numpy()


def _add_vocabulary(writer: Any, vocabulary: Vocabulary, stop_id: int) -> None:
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_tokenizer_pre(vocabulary.words)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    for name in ("bos", "eos", "unk", "sep", "pad"):
        if name in vocabulary.named:
            getattr(writer, f"add_{name}_token_id")(vocabulary.named[name])
    # Ends an answer, whatever ends a document.
    writer.add_eot_token_id(stop_id)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_chat_template(vocabulary.template)


def _names(
    gguf: Any, config: Mapping[str, Any], architecture: Architecture, weights: MergedWeights
) -> list[tuple[str, str]]:
    """(llama.cpp's name, stored name) of every tensor that is written."""
    arch = next(each for each, text in gguf.MODEL_ARCH_NAMES.items() if text == architecture.name)
    known = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    found = []
    for source in weights.tensors:
        if source.endswith("rotary_emb.inv_freq"):
            continue
        if source == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        target = known.get_name(source, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise BaseModelError(f"llama.cpp's {architecture.name} has no tensor for {source}.")
        found.append((target, source))
    return found


def _embedding(weights: MergedWeights) -> str:
    return next(name for name in weights.tensors if name.endswith("embed_tokens.weight"))


def _type(gguf: Any, kind: str, shape: tuple[int, ...]) -> Any:
    types = gguf.GGMLQuantizationType
    if len(shape) == 1:
        return types.F32
    if kind == "q8_0" and shape[-1] % BLOCK:
        return types.F16
    return getattr(types, TYPES[kind])


def _file_type(kind: str) -> str:
    return "ALL_F32" if kind == "f32" else f"MOSTLY_{TYPES[kind]}"


def _announce(gguf: Any, writer: Any, name: str, shape: tuple[int, ...], kind: Any) -> None:
    types = gguf.GGMLQuantizationType
    block, size = gguf.GGML_QUANT_SIZES[kind]
    num_bytes = math.prod(shape) // block * size
    if kind in (types.F32, types.F16):
        plain = torch.empty(0, dtype=torch.float32 if kind == types.F32 else torch.float16)
        writer.add_tensor_info(name, shape, plain.numpy().dtype, num_bytes)
        return
    stored = gguf.quant_shape_to_byte_shape(shape, kind)
    byte = torch.empty(0, dtype=torch.uint8).numpy().dtype
    writer.add_tensor_info(name, stored, byte, num_bytes, raw_dtype=kind)


def _as_llama_cpp(
    name: str, tensor: Tensor, config: Mapping[str, Any], architecture: Architecture
) -> Tensor:
    if architecture.adds_one and name.endswith("norm.weight"):
        return tensor + 1
    if architecture.permutes and ".q_proj." in name:
        return _interleaved(tensor, config["num_attention_heads"])
    if architecture.permutes and ".k_proj." in name:
        heads = config.get("num_key_value_heads") or config["num_attention_heads"]
        return _interleaved(tensor, heads)
    return tensor


def _interleaved(tensor: Tensor, num_heads: int) -> Tensor:
    """Rows of each head: first and second half alternate instead of following each other."""
    halves = tensor.view(num_heads, 2, -1, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape).contiguous()


def _differs(what: str, value: object) -> BaseModelError:
    return BaseModelError(
        f"This model has {what} ({value}) that llama.cpp would compute in another way. Export with "
        "--format merged."
    )
