/** A row's JSON as the turns of a conversation, whatever the file's kind. */

export interface Turn {
  role: string;
  text: string;
  note?: string;
}

type Json = Record<string, unknown>;

const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value);

export function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** Null where the row has no shape that reads as a conversation. */
export function turnsOf(value: unknown): Turn[] | null {
  if (!isObject(value)) return null;
  if (Array.isArray(value["messages"])) return [...value["messages"].map(turn), ...beside(value)];
  const input = value["input"];
  if (isObject(input) && Array.isArray(input["messages"])) {
    const answers = (["preferred_output", "non_preferred_output"] as const).flatMap((key) =>
      list(value[key]).map((message) => ({ ...turn(message), note: key === "preferred_output" ? "preferred" : "not preferred" })),
    );
    return [...input["messages"].map(turn), ...answers];
  }
  if (typeof value["prompt"] === "string" && typeof value["completion"] === "string") {
    return [
      { role: "prompt", text: value["prompt"] },
      { role: "completion", text: value["completion"] },
    ];
  }
  return null;
}

/** The first words of the conversation and of its answer, for a line in a list. */
export function excerpt(text: string): { question: string; answer: string } {
  const turns = turnsOf(parse(text));
  if (!turns) return { question: text.slice(0, 300), answer: "" };
  const question = turns.find((each) => each.role === "user" || each.role === "prompt") ?? turns[0];
  const answer = turns.filter((each) => each.role === "assistant" || each.role === "completion").at(-1);
  return { question: question?.text.slice(0, 300) ?? "", answer: answer?.text.slice(0, 300) ?? "" };
}

const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

function turn(message: unknown): Turn {
  if (!isObject(message)) return { role: "?", text: JSON.stringify(message) };
  const calls = list(message["tool_calls"]).map(callText);
  const old = isObject(message["function_call"]) ? [functionText(message["function_call"])] : [];
  const texts = [contentText(message["content"]), ...calls, ...old].filter((each) => each !== "");
  const role = typeof message["role"] === "string" ? message["role"] : "?";
  const weight = message["weight"];
  return { role, text: texts.join("\n"), ...(weight === 0 ? { note: "weight 0: not learned" } : {}) };
}

function contentText(content: unknown): string {
  if (typeof content === "string") return content;
  if (content === null || content === undefined) return "";
  const parts = list(content).map((part) => (isObject(part) && typeof part["text"] === "string" ? part["text"] : JSON.stringify(part)));
  return parts.length > 0 ? parts.join("\n") : JSON.stringify(content);
}

const callText = (call: unknown): string => (isObject(call) && isObject(call["function"]) ? functionText(call["function"]) : JSON.stringify(call));

function functionText(call: Json): string {
  const given = call["arguments"];
  return `${String(call["name"])}(${typeof given === "string" ? given : JSON.stringify(given)})`;
}

/** What stands beside the messages, such as tools or a grader's reference. */
function beside(value: Json): Turn[] {
  return Object.entries(value)
    .filter(([key]) => key !== "messages")
    .map(([key, item]) => ({ role: key, text: typeof item === "string" ? item : JSON.stringify(item, null, 2), note: "field" }));
}
