"""Shapes: the tensors of a decoder by their Hugging Face names. No torch here either."""

from __future__ import annotations

from tunesmith.model.families import DecoderConfig

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


def linear_shapes(config: DecoderConfig) -> dict[str, tuple[int, int]]:
    """Every linear of the blocks, in order, as (outputs, inputs): what LoRA adapts."""
    c = config
    query, kv = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    rows = {
        "q_proj": query,
        "k_proj": kv,
        "v_proj": kv,
        "qkv_proj": query + 2 * kv,
        "gate_proj": c.intermediate_size,
        "up_proj": c.intermediate_size,
        "gate_up_proj": 2 * c.intermediate_size,
    }
    block = {
        **{f"self_attn.{part}": (rows[part], c.hidden_size) for part in c.attention_inputs},
        "self_attn.o_proj": (c.hidden_size, query),
        **{f"mlp.{part}": (rows[part], c.hidden_size) for part in c.mlp_inputs},
        "mlp.down_proj": (c.hidden_size, c.intermediate_size),
    }
    return {
        f"model.layers.{layer}.{part}": shape
        for layer in range(c.num_layers)
        for part, shape in block.items()
    }


def weight_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor the decoder reads."""
    c = config
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (c.vocab_size, c.hidden_size)}
    for name, (outputs, inputs) in linear_shapes(c).items():
        shapes[f"{name}.weight"] = (outputs, inputs)
        if name.rpartition(".")[2] in c.biased:
            shapes[f"{name}.bias"] = (outputs,)
    for layer in range(c.num_layers):
        block = f"model.layers.{layer}"
        for norm in c.block_norms:
            shapes[f"{block}.{norm}.weight"] = (c.hidden_size,)
        if c.qk_norm:
            shapes[f"{block}.self_attn.q_norm.weight"] = (c.head_dim,)
            shapes[f"{block}.self_attn.k_norm.weight"] = (c.head_dim,)
    shapes["model.norm.weight"] = (c.hidden_size,)
    if not c.tie_embeddings:
        shapes[HEAD] = (c.vocab_size, c.hidden_size)
    return shapes
