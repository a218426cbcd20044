"""The quick looks that spare the slow ones give the same."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from tunesmith.data.checks import messages, privacy
from tunesmith.data.formats import ChatRow, Place

ROLE = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function", "", None])
CONTENT = st.one_of(st.sampled_from(["Hi", "", " ", None, ["Hi"], 3]), st.text(max_size=3))
MESSAGE = st.one_of(
    st.fixed_dictionaries(
        {"role": ROLE, "content": CONTENT},
        optional={
            "name": st.sampled_from(["Ann", 1, None]),
            "weight": st.sampled_from([0, 1, True]),
            "tool_calls": st.just([{"id": "a", "function": {"name": "f", "arguments": "{}"}}]),
        },
    ),
    st.just("Hi"),
    st.just({"role": ["user"], "content": "Hi"}),
    st.just({"role": "user"}),
)
Result = tuple[list[messages.Fault], ChatRow | None]


def found(row: dict[str, object]) -> Result:
    return messages.faults(Place("training_file", 1, 1, "the file"), row)


@given(st.lists(MESSAGE, max_size=5))
def test_a_plain_message_has_the_faults_and_the_form_that_a_closer_look_gives(
    rows: list[object],
) -> None:
    row: dict[str, object] = {"messages": rows}
    quick = found(row)
    with (
        patch("tunesmith.data.messages.is_plain", lambda message: False),
        patch("tunesmith.data.checks.messages.is_plain", lambda message: False),
    ):
        assert found(row) == quick


PRIVATE = (
    "ann@mail.net",
    "+49 170 1234567",
    "4111 1111 1111 1111",
    "8.8.8.8",
    "DE89 3704 0044 0532 0130 00",
    "password=Xk29fLq8Zp31",
    "AKIAABCDEFGHIJKLMNOP",
    "postgres://a:secret99@host",
)


@given(st.lists(st.one_of(st.sampled_from(PRIVATE), st.text(max_size=12)), max_size=6))
@example(list(PRIVATE))
def test_texts_that_hold_something_private_are_looked_at(texts: list[str]) -> None:
    if any(map(privacy.spans, texts)):
        assert privacy.may_hold("\0".join(texts))


def test_each_of_them_is_seen_alone() -> None:
    assert all(privacy.spans(text) and privacy.may_hold(text) for text in PRIVATE)
    assert not privacy.may_hold("A plain text, at 10:30, of no interest.")
