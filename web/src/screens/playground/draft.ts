/** What is being asked: it lives in this tab until it is closed; the address holds the rest. */
import { useEffect, useState } from "react";

import type { PlaygroundSearch } from "@/router";

import { ALTERNATIVES, type ChatBody, type Turn } from "./ask";

export interface Example {
  user: string;
  assistant: string;
}

export interface Draft {
  system: string;
  examples: Example[];
  /** The shared prompt. */
  prompt: string;
  /** The prompts of columns that have their own. */
  prompts: string[];
}

/** What is to be different in the address; undefined: not there. */
export type SearchChange = { [Name in keyof PlaygroundSearch]: PlaygroundSearch[Name] | undefined };

const KEPT = "playground-draft";
const EMPTY: Draft = { system: "", examples: [], prompt: "", prompts: [] };

export function useDraft() {
  const [draft, setDraft] = useState<Draft>(restored);
  useEffect(() => sessionStorage.setItem(KEPT, JSON.stringify(draft)), [draft]);
  const change = (part: Partial<Draft>) => setDraft((current) => ({ ...current, ...part }));
  return { draft, change };
}

function restored(): Draft {
  try {
    return { ...EMPTY, ...(JSON.parse(sessionStorage.getItem(KEPT) ?? "{}") as Partial<Draft>) };
  } catch {
    return EMPTY;
  }
}

/** The conversation that a column asks: system prompt, examples, then the prompt. */
export function turnsOf({ system, examples }: Draft, prompt: string): Turn[] {
  return [
    ...(system.trim() === "" ? [] : [{ role: "system", content: system } as const]),
    ...examples.flatMap(({ user, assistant }) =>
      user === "" && assistant === "" ? [] : [{ role: "user", content: user } as const, { role: "assistant", content: assistant } as const],
    ),
    { role: "user", content: prompt },
  ];
}

export const DEFAULT_MAX = "512";

/** The request of a column. What is no number goes as it is: the server says what is wrong. */
export function bodyOf(model: string, messages: Turn[], search: PlaygroundSearch): ChatBody {
  const max = search.max ?? DEFAULT_MAX;
  const stop = (search.stop ?? "").split("\n").filter((line) => line !== "");
  return {
    model,
    messages,
    ...given("temperature", search.temperature),
    ...given("top_p", search.top_p),
    ...given("max_completion_tokens", max),
    ...given("seed", search.seed),
    ...given("frequency_penalty", search.frequency),
    ...given("presence_penalty", search.presence),
    ...(stop.length > 0 ? { stop } : {}),
    logprobs: true,
    top_logprobs: ALTERNATIVES,
    stream: true,
    stream_options: { include_usage: true },
  };
}

type Numeric = "temperature" | "top_p" | "max_completion_tokens" | "seed" | "frequency_penalty" | "presence_penalty";

function given(name: Numeric, text: string | undefined): Partial<Record<Numeric, number>> {
  const trimmed = text?.trim() ?? "";
  if (trimmed === "") return {};
  const value = Number(trimmed);
  return { [name]: Number.isNaN(value) ? trimmed : value };
}
