"""Conversations made by code: tool calls, text to JSON, labels, lists, copying, sums, personas.

A 3 M parameter model has no facts, but it can learn the *shapes* of answers.  These samples put
those shapes (JSON, one-word labels, lists, tool calls and results, instructions in the system
message) into pre-training, so that fine-tuning starts from a model that can already write them.
Everything here is written for this project; random words come from the prose of the corpus, so
that copying is learned for any word and not for a fixed list.

Left out: any text or label of an evaluation set (SNIPS, Banking77, GSM8K, BFCL), paraphrasing by
another model, and long reasoning.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from base.words import (
    ANIMALS,
    BAD,
    CITIES,
    COLOURS,
    COUNTRIES,
    CUISINES,
    DAYS,
    FOODS,
    GOOD,
    KINDS,
    NAMES,
    THINGS,
    WEATHER,
)

Message = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One conversation, and the tools offered in it."""

    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)


class Maker:
    """Draws random samples; `words` is the vocabulary used for copying and naming."""

    def __init__(self, rng: random.Random, words: Sequence[str]) -> None:
        self.rng = rng
        self.words = words
        self.kinds: list[tuple[int, Callable[[], Sample]]] = [
            (7, self.tool_call),
            (2, self.tool_refused),
            (6, self.extract),
            (4, self.label),
            (2, self.sentiment),
            (2, self.choice),
            (3, self.copy),
            (2, self.listing),
            (2, self.letters),
            (1, self.counting),
            (1, self.sums),
            (3, self.persona),
            (3, self.lookup),
            (1, self.smalltalk),
            (2, self.unknown),
        ]

    def sample(self) -> Sample:
        weights = [weight for weight, _ in self.kinds]
        return self.rng.choices(self.kinds, weights)[0][1]()

    # -- drawing -----------------------------------------------------------------------------

    def pick(self, items: Sequence[str]) -> str:
        return items[int(self.rng.random() * len(items))]

    def phrase(self, low: int = 1, high: int = 3) -> str:
        return " ".join(self.pick(self.words) for _ in range(self.rng.randint(low, high)))

    def proper(self) -> str:
        return self.phrase(1, 2).title()

    def clock(self) -> str:
        return f"{self.rng.randint(1, 12)}:{self.rng.choice(['00', '15', '30', '45'])}"

    def chat(self, *turns: str, system: str = "") -> Sample:
        roles = ("user", "assistant")
        messages: list[Message] = [{"role": "system", "content": system}] if system else []
        messages += [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
        return Sample(messages)

    def place_instruction(self, instruction: str, text: str, answer: str) -> Sample:
        """The instruction goes into the system message, or before or after the text."""
        where = self.rng.random()
        if where < 0.55:
            return self.chat(text, answer, system=instruction)
        if where < 0.85:
            return self.chat(f"{instruction}\n{text}", answer)
        return self.chat(f"{text}\n\n{instruction}", answer)

    def echo(self) -> str:
        """Words without sense, said two or three times: only copying can predict the second."""
        span = self.phrase(4, 40)
        return self.rng.choice([" ", "\n", "\n\n", ". "]).join([span] * self.rng.randint(2, 3))

    # -- slots: the same random facts serve tools and text-to-JSON ----------------------------

    def slots(self) -> tuple[str, str, dict[str, Any], str, str]:
        """(tool name, request, arguments, tool result, closing sentence)."""
        pick, rng = self.pick, self.rng
        city, day, name = pick(CITIES), pick(DAYS), pick(NAMES)
        other, clock, number = pick(CITIES), self.clock(), rng.randint(1, 12)
        case = rng.randrange(10)
        if case == 0:
            temp, sky = rng.randint(-9, 35), pick(WEATHER)
            ask = pick(
                [
                    f"What is the weather in {city} on {day}?",
                    f"Will it rain in {city} on {day}?",
                    f"How is the weather in {city} {day}?",
                ]
            )
            return (
                "get_weather",
                ask,
                {"city": city, "day": day},
                json.dumps({"temperature": temp, "sky": sky}),
                f"It will be {sky} in {city} on {day}, with {temp} degrees.",
            )
        if case == 1:
            food = pick(CUISINES)
            ask = pick(
                [
                    f"Book a table for {number} at a {food} restaurant in {city} at {clock}.",
                    f"I want {food} food in {city} for {number} people at {clock}.",
                ]
            )
            return (
                "book_table",
                ask,
                {"cuisine": food, "city": city, "people": number, "time": clock},
                json.dumps({"status": "booked", "restaurant": (place := self.proper())}),
                f"Your table for {number} at {place} is booked for {clock}.",
            )
        if case == 2:
            ask = pick(
                [
                    f"Find me a flight from {city} to {other} on {day}.",
                    f"I need to fly to {other} from {city} on {day}.",
                ]
            )
            price = rng.randint(40, 900)
            return (
                "search_flights",
                ask,
                {"origin": city, "destination": other, "day": day},
                json.dumps({"price": price, "departure": clock}),
                f"There is a flight to {other} at {clock} on {day} for {price} dollars.",
            )
        if case == 3:
            ask = pick([f"Wake me up at {clock} on {day}.", f"Set an alarm for {clock} on {day}."])
            return (
                "set_alarm",
                ask,
                {"time": clock, "day": day},
                '{"status": "ok"}',
                f"Your alarm is set for {clock} on {day}.",
            )
        if case == 4:
            thing = self.phrase(2, 4)
            ask = pick([f"Remind me to {thing} on {day}.", f"Remind me on {day} to {thing}."])
            return (
                "create_reminder",
                ask,
                {"text": thing, "day": day},
                '{"status": "ok"}',
                f"I will remind you on {day} to {thing}.",
            )
        if case == 5:
            text = self.phrase(2, 6)
            ask = pick([f"Send a message to {name}: {text}", f'Tell {name} "{text}".'])
            return (
                "send_message",
                ask,
                {"to": name, "text": text},
                '{"sent": true}',
                f"I sent your message to {name}.",
            )
        if case == 6:
            who, song = self.proper(), self.proper()
            ask = pick([f"Put on {song} by {who}.", f"I want to hear {song} by {who}."])
            return (
                "start_song",
                ask,
                {"title": song, "singer": who},
                '{"playing": true}',
                f"Now playing {song} by {who}.",
            )
        if case == 7:
            item = pick(FOODS)
            ask = pick(
                [
                    f"Add {number} {item} to my shopping list.",
                    f"Put {item} on the list, {number} of them.",
                ]
            )
            return (
                "add_to_list",
                ask,
                {"item": item, "amount": number},
                json.dumps({"items": rng.randint(1, 20)}),
                f"I added {number} {item}.",
            )
        if case == 8:
            code = f"{pick('ABCDEFGHKLMN')}{rng.randint(100, 9999)}"
            state = pick(["shipped", "delivered", "delayed", "cancelled", "packed"])
            ask = pick([f"Where is my order {code}?", f"What is the status of order {code}?"])
            return (
                "get_order",
                ask,
                {"order_id": code},
                json.dumps({"status": state}),
                f"Your order {code} is {state}.",
            )
        amount = rng.randint(1, 500)
        source, target = rng.sample(["dollars", "euros", "pounds", "yen", "francs"], 2)
        result = round(amount * rng.uniform(0.5, 2.0), 2)
        return (
            "convert_money",
            f"How much is {amount} {source} in {target}?",
            {"amount": amount, "from": source, "to": target},
            json.dumps({"result": result}),
            f"{amount} {source} are {result} {target}.",
        )

    def schema(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        kinds = {key: "integer" if isinstance(v, int) else "string" for key, v in arguments.items()}
        function: dict[str, Any] = {"name": name}
        if self.rng.random() < 0.7:
            function["description"] = name.replace("_", " ").capitalize()
        function["parameters"] = {
            "type": "object",
            "properties": {key: {"type": kind} for key, kind in kinds.items()},
        }
        if self.rng.random() < 0.6:
            function["parameters"]["required"] = list(kinds)
        return {"type": "function", "function": function}

    def toolset(self, name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        tools = [self.schema(name, arguments)]
        for _ in range(self.rng.choice([0, 0, 1, 1, 2])):
            other, _, extra, _, _ = self.slots()
            if all(tool["function"]["name"] != other for tool in tools):
                tools.append(self.schema(other, extra))
        self.rng.shuffle(tools)
        return tools

    # -- kinds of samples --------------------------------------------------------------------

    def tool_call(self) -> Sample:
        name, ask, arguments, result, closing = self.slots()
        tools = self.toolset(name, arguments)
        call = {"type": "function", "function": {"name": name, "arguments": arguments}}
        messages = self.chat(
            ask, system=self.pick(["", "", "You can use tools.", "You are a helpful assistant."])
        ).messages
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": result},
            {"role": "assistant", "content": closing},
        ]
        return Sample(messages, tools)

    def tool_refused(self) -> Sample:
        """Tools are offered but the message needs none."""
        name, _, arguments, _, _ = self.slots()
        chat = self.smalltalk()
        return Sample(chat.messages, self.toolset(name, arguments))

    def extract(self) -> Sample:
        name, ask, arguments, _, _ = self.slots()
        keys = list(arguments)
        if self.rng.random() < 0.3:
            keys = self.rng.sample(keys, self.rng.randint(1, len(keys)))
        wanted = {key: arguments[key] for key in keys}
        if self.rng.random() < 0.4:
            wanted = {"action": name, **wanted}
        instruction = self.pick(
            [
                "Extract the details as JSON.",
                f"Return JSON with the keys {', '.join(wanted)}.",
                f"Reply with a JSON object: {', '.join(wanted)}.",
                "Turn the request into JSON. Write only JSON.",
                f"Fill in this form as JSON: {json.dumps(dict.fromkeys(wanted, ''))}",
            ]
        )
        indent = 2 if self.rng.random() < 0.1 else None
        return self.place_instruction(instruction, ask, json.dumps(wanted, indent=indent))

    def label(self) -> Sample:
        """Which tool would the request need?  The labels change their spelling on purpose."""
        style: Callable[[str], str] = self.rng.choice(
            [
                lambda s: s,
                lambda s: s.replace("_", " "),
                lambda s: s.split("_")[-1],
                lambda s: s.title().replace("_", ""),
                lambda s: s.upper(),
            ]
        )
        drawn = [self.slots() for _ in range(self.rng.randint(1, 4))]
        names = list(dict.fromkeys(style(one[0]) for one in drawn))
        chosen = self.rng.choice(drawn)
        self.rng.shuffle(names)
        instruction = self.pick(
            [
                f"Answer with one label: {', '.join(names)}.",
                f"Choose one of: {', '.join(names)}. Reply with the label only.",
                f"Sort the message into one of these classes: {', '.join(names)}",
            ]
        )
        return self.place_instruction(instruction, chosen[1], style(chosen[0]))

    def sentiment(self) -> Sample:
        good = self.rng.random() < 0.5
        thing, word = self.pick(THINGS), self.pick(GOOD if good else BAD)
        text = self.pick(
            [
                f"The {thing} was {word}.",
                f"What a {word} {thing}!",
                f"I think this {thing} is really {word}.",
                f"My {thing} in {self.pick(CITIES)} was {word}.",
            ]
        )
        yes, no = self.rng.choice(
            [
                ("positive", "negative"),
                ("good", "bad"),
                ("happy", "unhappy"),
                ("POSITIVE", "NEGATIVE"),
                ("1", "0"),
            ]
        )
        instruction = self.pick(
            [
                f"Answer {yes} or {no}.",
                f"Is this {yes} or {no}? One word.",
                f"Reply with one word: {yes} or {no}.",
            ]
        )
        return self.place_instruction(instruction, text, yes if good else no)

    def choice(self) -> Sample:
        kinds = self.rng.sample(list(KINDS), self.rng.randint(2, 4))
        word = self.pick(KINDS[kinds[0]])
        if self.rng.random() < 0.3:
            asked = self.rng.choice(kinds)
            return self.chat(
                f"Is {word} a kind of {asked}? Answer yes or no.",
                "yes" if asked == kinds[0] else "no",
            )
        options = sorted(kinds)
        return self.chat(f"Is {word} {' or '.join(options)}? Reply with one word.", kinds[0])

    def copy(self) -> Sample:
        text = self.phrase(1, 9)
        case = self.rng.randrange(6)
        if case == 0:
            return self.place_instruction("Repeat the message.", text, text)
        if case == 1:
            return self.place_instruction("Write the text in capital letters.", text, text.upper())
        if case == 2:
            return self.chat(f'Say "{text}".', text)
        if case == 3:
            return self.place_instruction("Put the text in quotes.", text, f'"{text}"')
        if case == 4:
            which, word = self.rng.choice([("first", text.split()[0]), ("last", text.split()[-1])])
            return self.chat(f"What is the {which} word of: {text}", word)
        return self.place_instruction("Repeat the message twice.", text, f"{text} {text}")

    def listing(self) -> Sample:
        items = (
            self.rng.sample(self.rng.choice(list(KINDS.values())), self.rng.randint(2, 6))
            if self.rng.random() < 0.5
            else self.phrase(2, 6).split()
        )
        shapes = {
            "as a bullet list": "\n".join(f"- {item}" for item in items),
            "as a numbered list": "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1)),
            "separated by commas": ", ".join(items),
            "as a JSON list": json.dumps(items),
            "one per line": "\n".join(items),
            "in alphabetical order": ", ".join(sorted(items)),
        }
        how = self.pick(list(shapes))
        return self.place_instruction(f"Write the words {how}.", " ".join(items), shapes[how])

    def letters(self) -> Sample:
        word = self.pick(self.words)
        if self.rng.random() < 0.5:
            return self.chat(f"Spell {word}.", "-".join(word))
        return self.chat(f"What is the first letter of {word}?", word[0])

    def counting(self) -> Sample:
        start = self.rng.randint(0, 30)
        stop = start + self.rng.randint(2, 9)
        numbers = ", ".join(map(str, range(start, stop + 1)))
        return self.chat(f"Count from {start} to {stop}.", numbers)

    def sums(self) -> Sample:
        a, b = self.rng.randint(0, 10), self.rng.randint(0, 10)
        form = self.pick(["What is {a} plus {b}?", "{a} + {b} =", "Add {a} and {b}."])
        return self.chat(form.format(a=a, b=b), str(a + b))

    def persona(self) -> Sample:
        name = self.pick(NAMES)
        firm = f"{self.proper()} {self.pick(['Cafe', 'Bank', 'Hotel', 'Shop'])}"
        system = self.pick(
            [
                f"You are {name}, the assistant of {firm}.",
                f"Your name is {name}. You work for {firm}.",
            ]
        )
        turns = [
            ("What is your name?", f"My name is {name}."),
            ("Who are you?", f"I am {name}."),
            ("Where do you work?", f"I work for {firm}."),
            ("Hello!", f"Hello, this is {name} of {firm}. How can I help you?"),
        ]
        chosen = self.rng.sample(turns, self.rng.randint(1, 3))
        return self.chat(*[text for turn in chosen for text in turn], system=system)

    def lookup(self) -> Sample:
        """The answer stands in the given text: reading, not knowing."""
        people = self.rng.sample(NAMES, self.rng.randint(2, 4))
        facts = [(p, self.pick(CITIES), self.pick(ANIMALS), self.pick(COLOURS)) for p in people]
        text = " ".join(
            self.pick([f"{p} lives in {c}.", f"{p} is from {c}."]) + f" {p} has a {col} {a}."
            for p, c, a, col in facts
        )
        person, city, animal, colour = self.rng.choice(facts)
        ask, answer = self.rng.choice(
            [
                (f"Where does {person} live?", city),
                (f"What animal does {person} have?", animal),
                (f"What colour is the {animal} of {person}?", colour),
            ]
        )
        return self.place_instruction(text, ask, answer)

    def unknown(self) -> Sample:
        """Questions of fact: this model has none, and should say so."""
        ask = self.pick(
            [
                f"What is the capital of {self.pick(COUNTRIES)}?",
                f"Who wrote {self.proper()}?",
                f"When was {self.pick(NAMES)} {self.proper()} born?",
                f"How many people live in {self.pick(CITIES)}?",
                f"Who is the president of {self.pick(COUNTRIES)}?",
                f"How far is it from {self.pick(CITIES)} to {self.pick(CITIES)}?",
                f"Who won the {self.phrase(1, 1)} game in {self.rng.randint(1900, 2030)}?",
                f"What happened in {self.rng.randint(1000, 2030)}?",
            ]
        )
        answer = self.pick(
            ["I do not know.", "I am sorry, I do not know that.", "I do not know that."]
        )
        system = self.pick(["", "", "You are a helpful assistant."])
        return self.chat(ask, answer, system=system)

    def smalltalk(self) -> Sample:
        name = self.pick(NAMES)
        turns = [
            ("Hello!", "Hello! How can I help you?"),
            ("Hi", "Hi! What can I do for you?"),
            ("Good morning", "Good morning! How can I help you today?"),
            ("How are you?", "I am fine, thank you. How are you?"),
            ("Thank you!", "You are welcome!"),
            ("Bye", "Goodbye! Have a nice day."),
            (f"My name is {name}.", f"Nice to meet you, {name}."),
            (f"Hello, I am {name}.", f"Hello, {name}! How can I help you?"),
            ("What can you do?", "I can answer short questions and help you with simple tasks."),
            ("Who are you?", "I am a small language model."),
            ("Are you a human?", "No, I am a small language model."),
            ("Thanks, that is all.", "You are welcome. Goodbye!"),
        ]
        chosen = self.rng.sample(turns, self.rng.randint(1, 3))
        system = self.pick(["", "", "You are a helpful assistant."])
        return self.chat(*[text for turn in chosen for text in turn], system=system)
