"""Control tokens of chat templates in users' texts."""

from __future__ import annotations

import re

from tunesmith.data.render import Renderer

# Of the common families; not those that are also markup, such as <s>.
COMMON = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|channel|>",
    "<|return|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "<<SYS>>",
    "<</SYS>>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
)


def control_pattern(renderer: Renderer | None) -> re.Pattern[str]:
    """Finds a control token: of this base's template, or of the common ones."""
    tokens = COMMON if renderer is None else sorted(renderer.control_tokens)
    longest_first = sorted(filter(None, tokens), key=lambda each: (-len(each), each))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
