"""The terminal. What is printed comes from users and models, so it is taken literally:

no markup ("[...]" stays), no emoji names (a model called "ft:base:fire:..." keeps its colons).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def screen() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def say(console: Console, text: str = "", style: str = "") -> None:
    """A line as it is, never broken: it may hold a command to copy."""
    console.print(text, style=style, soft_wrap=True)
