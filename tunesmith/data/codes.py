"""What a check can find: the one table of codes.

The report, the command line, the API and docs/data.md all read this table; a code that is not in it
cannot be reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""The most serious first. A file with an error is refused by a job; with a warning it is not."""


@dataclass(frozen=True)
class CodeInfo:
    severity: Severity
    title: str
    effect: str
    """What it does to training."""
    fix: str
    """The next step."""
    repairable: bool = False
    """Whether `tunesmith data fix` can mend it without losing anything that is not named."""


_REFUSED = "A job with this file fails at its validation."
_UNSEEN = "The model is trained on it as it stands; nobody will notice until it answers."

CODES: dict[str, CodeInfo] = {
    # The file and its lines.
    "wrong_file_kind": CodeInfo(
        "error",
        "not a text file of rows",
        _REFUSED,
        "Save the data as UTF-8 text with one JSON object on each line; "
        "`tunesmith data convert` reads Parquet.",
    ),
    "empty_file": CodeInfo("error", "no rows", _REFUSED, "Add examples, one JSON object a line."),
    "pretty_printed": CodeInfo(
        "error",
        "JSON objects spread over several lines",
        _REFUSED,
        "Write each example on one line: `tunesmith data fix`.",
        repairable=True,
    ),
    "json_array": CodeInfo(
        "error",
        "one JSON array in place of one object a line",
        _REFUSED,
        "Write each element on its own line: `tunesmith data fix` or `tunesmith data convert`.",
        repairable=True,
    ),
    "csv_file": CodeInfo(
        "error",
        "a CSV table in place of JSON lines",
        _REFUSED,
        "Turn it into chat rows: `tunesmith data convert`.",
    ),
    "foreign_format": CodeInfo(
        "error",
        "rows in another tool's format",
        _REFUSED,
        "Turn them into chat rows: `tunesmith data convert`.",
    ),
    "not_utf8": CodeInfo("error", "bytes that are not UTF-8", _REFUSED, "Save the file as UTF-8."),
    "typographic_quotes": CodeInfo(
        "error",
        "typographic quotes in place of plain ones",
        _REFUSED,
        'Replace them by plain quotes ("): `tunesmith data fix`.',
        repairable=True,
    ),
    "invalid_json": CodeInfo(
        "error",
        "lines that are not JSON",
        _REFUSED,
        "Write each example with json.dumps(example); `tunesmith data fix` mends what is certain.",
        repairable=True,
    ),
    "line_too_long": CodeInfo(
        "error", "a line above the size limit", _REFUSED, "Split the example into shorter ones."
    ),
    "row_not_object": CodeInfo(
        "error",
        "rows that are no JSON object",
        _REFUSED,
        'Write each row as an object such as {"messages": [...]}.',
    ),
    "duplicate_keys": CodeInfo(
        "warning",
        "a key twice in one object",
        "Only the last value of the key is read; the others are lost.",
        "Keep one of them: `tunesmith data fix` keeps the one that is read today.",
        repairable=True,
    ),
    "byte_order_mark": CodeInfo(
        "warning",
        "a byte order mark at the beginning",
        "None here; other tools refuse the first row.",
        "Save as UTF-8 without BOM: `tunesmith data fix`.",
        repairable=True,
    ),
    "crlf": CodeInfo(
        "warning",
        "lines that end in CRLF",
        "None here; other tools may keep the carriage return.",
        "End lines with a line feed only: `tunesmith data fix`.",
        repairable=True,
    ),
    "blank_lines": CodeInfo(
        "warning",
        "blank lines",
        "None here, but example numbers and line numbers differ; other tools refuse them.",
        "Remove them: `tunesmith data fix`.",
        repairable=True,
    ),
    # The kind of rows.
    "wrong_format": CodeInfo(
        "error",
        "rows of another training method",
        _REFUSED,
        "Choose the method that fits the file, or convert the rows: `tunesmith data convert`.",
    ),
    "missing_messages": CodeInfo(
        "error",
        "rows without messages",
        _REFUSED,
        'Give each row a non-empty list "messages".',
    ),
    "unknown_key": CodeInfo(
        "error",
        "keys that the format does not know",
        _REFUSED,
        "Remove the key: `tunesmith data fix` does, and says what is lost.",
        repairable=True,
    ),
    "missing_role": CodeInfo(
        "error", "messages without a role", _REFUSED, "Give each message its role."
    ),
    "wrong_role": CodeInfo(
        "error",
        "roles that do not exist",
        _REFUSED,
        "Use system, developer, user, assistant or tool; `tunesmith data fix` maps common names.",
        repairable=True,
    ),
    "missing_content": CodeInfo(
        "error",
        "messages without content",
        _REFUSED,
        "Give the message its text; null stands only beside tool_calls.",
    ),
    "bad_weight": CodeInfo(
        "error",
        "a weight other than 0 or 1",
        _REFUSED,
        "Use 0 (do not learn) or 1 (learn); `tunesmith data fix` mends 0.0, 1.0, true and false.",
        repairable=True,
    ),
    "last_not_assistant": CodeInfo(
        "error",
        "the last message is not the assistant's",
        _REFUSED,
        "End each example with the answer to learn, or remove what follows it.",
    ),
    "nothing_to_learn": CodeInfo(
        "error",
        "no assistant message with a weight",
        _REFUSED,
        "Give at least one assistant message weight 1, or remove the row.",
    ),
    "arguments_not_json": CodeInfo(
        "error",
        "arguments of a tool call that are no JSON object",
        _REFUSED,
        "Write arguments as json.dumps(arguments) gives them.",
        repairable=True,
    ),
    "orphan_tool_message": CodeInfo(
        "error",
        "tool messages that answer no call",
        _REFUSED,
        "Let tool_call_id name a tool call of an assistant message before it.",
    ),
    "invalid_tools": CodeInfo(
        "error",
        "tool definitions that are wrong",
        _REFUSED,
        "Give each tool type 'function' and a function with name and parameters.",
    ),
    "invalid_message": CodeInfo(
        "error", "messages of a wrong shape", _REFUSED, "See the message; correct the row."
    ),
    "invalid_completion": CodeInfo(
        "error",
        "prompt/completion rows of a wrong shape",
        _REFUSED,
        'Write {"prompt": "...", "completion": "..."} with two texts.',
    ),
    "invalid_preference": CodeInfo(
        "error",
        "preference rows of a wrong shape",
        _REFUSED,
        'Write {"input": {"messages": [...]}, "preferred_output": [one assistant message], '
        '"non_preferred_output": [one assistant message]}.',
    ),
    "equal_preference": CodeInfo(
        "warning",
        "the preferred answer equals the rejected one",
        "The row teaches nothing: its gradient is zero.",
        "Remove the row or correct one answer: `tunesmith data fix` removes it.",
        repairable=True,
    ),
    "invalid_reinforcement": CodeInfo(
        "error",
        "reinforcement rows of a wrong shape",
        _REFUSED,
        "End messages with the user's; put what the grader needs beside them as other keys.",
    ),
    "invalid_eval": CodeInfo(
        "error", "eval rows of a wrong shape", _REFUSED, 'Write {"item": {...}} in each row.'
    ),
    "cannot_render": CodeInfo(
        "error",
        "rows that the base model's chat template cannot write",
        _REFUSED,
        "Change the row as the message says, or choose a base model that can.",
    ),
    # The whole file.
    "too_few_rows": CodeInfo(
        "error", "fewer than 10 rows", _REFUSED, "Write at least 10 examples; 50 to 100 are better."
    ),
    "answer_cut": CodeInfo(
        "error",
        "rows so long that the whole last answer is beyond the limit",
        "Refused here; a service that cuts would train on no answer at all.",
        "Shorten the prompt or split the row, or choose a base with a longer context.",
    ),
    "too_long": CodeInfo(
        "error",
        "rows longer than the base model can take",
        "Refused here; a service that cuts would lose the end of the answer.",
        "Shorten or split them, or choose a base with a longer context.",
    ),
    "secret": CodeInfo(
        "warning",
        "what looks like a key or a password",
        "The model may repeat it to anybody who asks.",
        "Revoke the key and mask it: `tunesmith data fix --only secret`.",
        repairable=True,
    ),
    "leakage": CodeInfo(
        "warning",
        "validation rows that are also in the training file",
        "The validation loss looks better than the model is.",
        "Remove them from one side: `tunesmith data split` keeps duplicates together.",
    ),
    "near_leakage": CodeInfo(
        "warning",
        "validation rows that are almost in the training file",
        "The validation loss looks better than the model is.",
        "Remove them from one side: `tunesmith data split` keeps duplicates together.",
    ),
    "contradiction": CodeInfo(
        "warning",
        "one prompt with different answers",
        "The model learns to guess between them.",
        "Keep the right answer, or add to the prompt what decides between them.",
    ),
    "one_answer": CodeInfo(
        "warning",
        "many prompts with one answer",
        "The model learns to give this answer whatever it is asked.",
        "Vary the answer, or use fewer rows that have it.",
    ),
    "refusals": CodeInfo(
        "warning",
        "many answers refuse",
        "The model learns to refuse more than you want.",
        "Keep refusals to the share that you want in use.",
    ),
    "mixed_json": CodeInfo(
        "warning",
        "answers that do not parse among answers that are JSON",
        "The model will now and then break the format.",
        "Correct the answers named, so that every one parses.",
    ),
    "mixed_endings": CodeInfo(
        "warning",
        "some answers begin or end in white space, most do not (or the other way round)",
        "The model learns to put it there at random.",
        "Make them alike: `tunesmith data fix --only mixed_endings`.",
        repairable=True,
    ),
    "exact_duplicate": CodeInfo(
        "warning",
        "rows that are there more than once",
        "They weigh more than the others, and epochs repeat them again.",
        "Remove the copies: `tunesmith data fix`.",
        repairable=True,
    ),
    "near_duplicate": CodeInfo(
        "warning",
        "rows that are almost the same",
        "They weigh more than the others and hide how little there is.",
        "Keep the best of each group.",
    ),
    "tool_calls_without_tools": CodeInfo(
        "warning",
        "tool calls in rows without tools",
        "The model learns to call what it was never told about.",
        'Add the definitions in "tools" to the row.',
    ),
    "unknown_tool": CodeInfo(
        "warning",
        "calls of a tool that the row does not define",
        "The model learns to call what it was never told about.",
        'Add its definition to "tools", or correct the name.',
    ),
    "unanswered_tool_call": CodeInfo(
        "warning",
        "tool calls that get no answer although the conversation goes on",
        "The model learns to go on without the tool's result.",
        "Add the tool message that answers the call.",
    ),
    "special_tokens": CodeInfo(
        "warning",
        "control tokens of the chat template inside a text",
        "Here they are taken as text; other tools would end or begin a turn there.",
        "Remove them: most come from text that was rendered before.",
    ),
    "empty_content": CodeInfo(
        "warning",
        "messages with empty content",
        "An empty answer teaches the model to say nothing.",
        "Fill in the text, or remove the message or the row.",
    ),
    "no_user_message": CodeInfo(
        "warning",
        "rows without a user message",
        "The model learns to speak without being asked.",
        "Add the user's message.",
    ),
    "answer_copies_prompt": CodeInfo(
        "warning",
        "the answer repeats the prompt",
        "The model learns to echo.",
        "Check that the columns were not mixed up.",
    ),
    "system_variants": CodeInfo(
        "warning",
        "system messages that are almost equal",
        "Each variant is learned on its own; in use only one will be sent.",
        "Use one text in all rows: `tunesmith data fix --only system_variants`.",
        repairable=True,
    ),
    "label_imbalance": CodeInfo(
        "warning",
        "labels that are far from balanced",
        "The model leans to the most frequent label.",
        "Add examples of the rare labels, or use fewer of the frequent one.",
    ),
    "preference_length_bias": CodeInfo(
        "warning",
        "preferred answers are nearly always the longer (or the shorter) ones",
        "The model learns the length, not the quality.",
        "Add pairs where the shorter (or the longer) answer is preferred.",
    ),
    "personal_data": CodeInfo(
        "warning",
        "what looks like personal data",
        "The model may repeat it to anybody who asks.",
        "Mask it where it is not needed: `tunesmith data fix --only personal_data`.",
        repairable=True,
    ),
    "language_mismatch": CodeInfo(
        "warning",
        "the answer is in another language than the prompt",
        "The model learns to change the language.",
        "Translate one of them, unless translating is the task.",
    ),
    "few_rows": CodeInfo(
        "warning",
        "fewer than 50 rows",
        "Enough to learn a form, too little to learn a task well.",
        "Write 50 to 100 examples before you judge the result.",
    ),
    "mixed_languages": CodeInfo(
        "info",
        "a few rows are in another language",
        _UNSEEN,
        "Remove them if they are there by accident.",
    ),
    "length_outlier": CodeInfo(
        "info",
        "answers far longer than the others",
        "They take a large part of the trained tokens.",
        "Look at them: often a cut or a paste has gone wrong.",
    ),
}
