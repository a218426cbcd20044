"""`tunesmith chat`: talk to a model in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.options import DEFAULT_BASE_URL, ApiKey, BaseUrl, connect
from tunesmith.cli.problem import explain
from tunesmith.cli.screen import say, screen

if TYPE_CHECKING:
    from openai import OpenAI
    from rich.console import Console

COMMANDS = "/reset starts over, /system TEXT sets the system message, /exit leaves"
# What a model says must not steer the terminal: control characters but tab and newline are shown.
VISIBLE = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}


def chat(
    model: Annotated[str, typer.Argument(help="Any model's name.", show_default=False)],
    system: Annotated[str, typer.Option(help="System message.", show_default=False)] = "",
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0 is repeatable.")] = 0.7,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer, tokens.", show_default=False)
    ] = None,
    base_url: BaseUrl = DEFAULT_BASE_URL,
    api_key: ApiKey = "",
) -> None:
    """Talk to a model. Ctrl-C stops an answer; Ctrl-D leaves."""
    console = screen()
    client = connect(base_url, api_key)
    require_model(client, model)
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401 - gives input() a history and line editing

        say(console, model, "bold")
        say(console, f"{COMMANDS}\n", "dim")
    options: dict[str, Any] = {"temperature": temperature}
    if max_tokens is not None:
        options["max_tokens"] = max_tokens
    talk = Conversation(client, model, options)
    talk.start(system)
    try:
        while (line := ask(interactive)) is not None:
            if line and not command(talk, line, console):
                answer(talk, line, console, interactive)
    except EndOfChat:
        return


def require_model(client: OpenAI, model: str) -> None:
    """Shows a wrong name or key before the first question."""
    import openai

    try:
        client.models.retrieve(model)
    except openai.NotFoundError as error:
        # Not every compatible server has this route; one that knows it says which thing is missing.
        if error.code == "model_not_found":
            raise


class EndOfChat(Exception):
    pass


class Conversation:
    """The messages so far, and the model that continues them."""

    def __init__(self, client: OpenAI, model: str, options: dict[str, Any]) -> None:
        self.client = client
        self.model = model
        self.options = options
        self.messages: list[dict[str, str]] = []

    def start(self, system: str = "") -> None:
        self.messages = [{"role": "system", "content": system}] if system else []

    def system(self) -> str:
        first = self.messages[:1]
        return first[0]["content"] if first and first[0]["role"] == "system" else ""

    def reply(self, text: str) -> Generator[str, None, None]:
        """Streams the answer's pieces; the turn is kept once it has text, also if broken off."""
        messages = [*self.messages, {"role": "user", "content": text}]
        pieces: list[str] = []
        # The client's overloads want literal dictionaries; what is sent is the same.
        request: Any = {"model": self.model, "messages": messages, "stream": True}
        stream: Any = self.client.chat.completions.create(**request, **self.options)
        try:
            for chunk in stream:
                piece = chunk.choices[0].delta.content if chunk.choices else None
                if piece:
                    pieces.append(piece)
                    yield piece
        finally:
            stream.close()
            if pieces:
                self.messages = [*messages, {"role": "assistant", "content": "".join(pieces)}]


def ask(interactive: bool) -> str | None:
    """The next line; None at the end of input or on Ctrl-C."""
    try:
        return input("> " if interactive else "").strip()
    except (EOFError, KeyboardInterrupt):
        if interactive:
            print()
        return None


def command(talk: Conversation, line: str, console: Console) -> bool:
    """Obeys a /command; False for a line that is for the model."""
    word, _, rest = line.partition(" ")
    if word == "/reset":
        talk.start(talk.system())
        say(console, "started over", "dim")
    elif word == "/system":
        talk.start(rest.strip())
        say(console, "system message set; started over", "dim")
    elif word in ("/exit", "/quit"):
        raise EndOfChat
    elif word.startswith("/"):
        say(console, COMMANDS, "dim")
    else:
        return False
    return True


def answer(talk: Conversation, line: str, console: Console, interactive: bool) -> None:
    """Prints the reply as it comes. A conversation outlives an error; a script's ends with it."""
    reply = talk.reply(line)
    try:
        for piece in reply:
            console.file.write(piece.translate(VISIBLE))
            console.file.flush()
        console.print()
    except KeyboardInterrupt:
        reply.close()
        say(console, " (stopped)", "dim")
    except Exception as error:
        problem = explain(error)
        if problem is None or not interactive:
            raise
        say(console, problem, "red")
    if interactive:
        console.print()
