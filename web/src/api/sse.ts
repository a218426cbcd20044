/** Server-sent events over fetch: with Last-Event-ID across reconnects, and errors that can be read. */
import { useEffect, useRef, useState } from "react";

import { refusal } from "./client";

export interface Message {
  id: string | null;
  event: string;
  data: string;
}

/** The messages of one answer's body, as they arrive. */
export async function* messages(body: ReadableStream<Uint8Array>): AsyncGenerator<Message> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let buffer = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      buffer += value;
      const blocks = buffer.split(/\r?\n\r?\n/);
      buffer = blocks.pop() ?? "";
      for (const block of blocks) {
        const message = parse(block);
        if (message) yield message;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function parse(block: string): Message | null {
  const message: Message = { id: null, event: "message", data: "" };
  const data: string[] = [];
  for (const line of block.split(/\r?\n/)) {
    const colon = line.indexOf(":");
    if (colon === 0) continue;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") data.push(value);
    else if (field === "event") message.event = value;
    else if (field === "id") message.id = value;
  }
  if (data.length === 0) return null;
  message.data = data.join("\n");
  return message;
}

export type StreamState = "connecting" | "open" | "waiting" | "closed";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

/** Follows an event stream while mounted: reconnects where it broke off. `url` null: no stream. */
export function useEvents(url: string | null, onMessage: (message: Message) => void): StreamState {
  const [state, setState] = useState<StreamState>("connecting");
  const handler = useRef(onMessage);
  useEffect(() => {
    handler.current = onMessage;
  });
  useEffect(() => {
    if (url === null) {
      setState("closed");
      return;
    }
    const abort = new AbortController();
    void follow(url, abort.signal, (message) => handler.current(message), setState);
    return () => abort.abort();
  }, [url]);
  return state;
}

async function follow(
  url: string,
  signal: AbortSignal,
  onMessage: (message: Message) => void,
  onState: (state: StreamState) => void,
): Promise<void> {
  let lastId: string | null = null;
  let pauseMs = FIRST_PAUSE_MS;
  while (!signal.aborted) {
    try {
      const headers: Record<string, string> = { accept: "text/event-stream" };
      if (lastId !== null) headers["last-event-id"] = lastId;
      const response = await fetch(url, { headers, signal });
      if (!response.ok) {
        if (response.status < 500) throw await refusal(response);
      } else if (response.body) {
        onState("open");
        for await (const message of messages(response.body)) {
          pauseMs = FIRST_PAUSE_MS;
          if (message.id !== null) lastId = message.id;
          onMessage(message);
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Error && "status" in error && error.status !== 0) {
        onState("closed");
        return;
      }
    }
    if (signal.aborted) return;
    onState("waiting");
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
    pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS);
  }
}
