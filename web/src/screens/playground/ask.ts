/** One question to one model: the request, and its answer as it comes. */
import { ApiError, refusal, SIGNED_OUT, type Schemas } from "@/api/client";
import { messages as eventsOf } from "@/api/sse";

export interface Turn {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface Alternative {
  token: string;
  bytes: number[] | null;
  logprob: number;
}

export interface Token extends Alternative {
  top_logprobs: Alternative[];
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  prompt_tokens_details?: { cached_tokens?: number };
}

interface Chunk {
  choices: { delta: { content?: string | null }; finish_reason: string | null; logprobs?: { content: Token[] | null } | null }[];
  usage?: Usage | null;
  error?: { message: string; code: string | null; param: string | null };
}

export interface Answer {
  state: "waiting" | "streaming" | "done" | "stopped" | "failed";
  model: string;
  /** What was asked. */
  turns: Turn[];
  text: string;
  tokens: Token[];
  finish: string | null;
  usage: Usage | null;
  firstMs: number | null;
  totalMs: number | null;
  error: unknown;
}

export const isOpen = (answer: Answer | undefined): boolean => answer?.state === "waiting" || answer?.state === "streaming";

export const ALTERNATIVES = 5;
// Words are drawn a few times a second, however fast they come.
const FLUSH_MS = 60;

export type ChatBody = Partial<Schemas["CreateChatCompletion"]> & { model: string; messages: Turn[] };

/** Asks, and tells `onChange` of the answer so far, until it has ended. Never rejects. */
export async function ask(body: ChatBody, signal: AbortSignal, onChange: (answer: Answer) => void): Promise<void> {
  const startMs = performance.now();
  const answer: Answer = {
    state: "waiting",
    model: body.model,
    turns: body.messages,
    text: "",
    tokens: [],
    finish: null,
    usage: null,
    firstMs: null,
    totalMs: null,
    error: null,
  };
  let drawnMs = 0;
  const draw = () => {
    drawnMs = performance.now();
    onChange({ ...answer, tokens: answer.tokens.slice() });
  };
  draw();
  try {
    for await (const chunk of chunksOf(body, signal)) {
      answer.state = "streaming";
      take(answer, chunk, performance.now() - startMs);
      if (performance.now() - drawnMs > FLUSH_MS) draw();
    }
    answer.state = "done";
  } catch (error) {
    answer.state = signal.aborted ? "stopped" : "failed";
    answer.error = signal.aborted ? null : error;
  }
  answer.totalMs = performance.now() - startMs;
  draw();
}

async function* chunksOf(body: ChatBody, signal: AbortSignal): AsyncGenerator<Chunk> {
  const headers = { "content-type": "application/json" };
  let response: Response;
  try {
    response = await fetch("/v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
  } catch {
    throw new ApiError("The server cannot be reached. It may be restarting.", 0);
  }
  if (response.status === 401) window.dispatchEvent(new Event(SIGNED_OUT));
  if (!response.ok || !response.body) throw await refusal(response);
  for await (const { data } of eventsOf(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data) as Chunk;
    if (chunk.error) throw new ApiError(chunk.error.message, 500, chunk.error.code, chunk.error.param);
    yield chunk;
  }
  throw new ApiError("The answer broke off: the connection was lost.", 0);
}

function take(answer: Answer, chunk: Chunk, elapsedMs: number): void {
  for (const choice of chunk.choices) {
    const fresh = choice.logprobs?.content ?? [];
    if (choice.delta.content || fresh.length > 0) answer.firstMs ??= elapsedMs;
    answer.text += choice.delta.content ?? "";
    answer.tokens.push(...fresh);
    answer.finish = choice.finish_reason ?? answer.finish;
  }
  if (chunk.usage) answer.usage = chunk.usage;
}
