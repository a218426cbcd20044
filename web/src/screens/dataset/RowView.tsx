/** One row: as a conversation, or as the JSON that it is. */
import clsx from "clsx";

import type { Schemas } from "@/api/client";
import { Badge } from "@/parts/Badge";
import { CodeBlock } from "@/parts/Code";

import { parse, turnsOf, type Turn } from "./conversation";

export function RowView({ row, raw }: { row: Schemas["RowAt"]; raw: boolean }) {
  const value = parse(row.text);
  const turns = raw ? null : turnsOf(value);
  return (
    <div className="flex flex-col gap-3">
      {row.problem !== null && <p className="rounded-lg bg-bad-wash px-3 py-2 text-sm text-bad">This line {row.problem}.</p>}
      {row.is_cut && <p className="rounded-lg bg-warn-wash px-3 py-2 text-sm text-warn">Only the beginning of this row is shown.</p>}
      {turns ? (
        turns.map((turn, index) => <Bubble key={index} turn={turn} />)
      ) : (
        <CodeBlock label="JSON of the row" code={value === undefined ? row.text : JSON.stringify(value, null, 2)} />
      )}
    </div>
  );
}

const ROLES: Record<string, string> = {
  assistant: "bg-accent-wash",
  completion: "bg-accent-wash",
  user: "bg-sunken",
  prompt: "bg-sunken",
};

function Bubble({ turn }: { turn: Turn }) {
  const isAnswer = turn.role === "assistant" || turn.role === "completion";
  return (
    <div className={clsx("max-w-[92%]", isAnswer && "ml-auto")}>
      <div className={clsx("mb-1 flex items-center gap-2 text-xs text-faint", isAnswer && "justify-end")}>
        {turn.role}
        {turn.note && <Badge tone={turn.note === "not preferred" ? "bad" : turn.note === "preferred" ? "good" : "neutral"}>{turn.note}</Badge>}
      </div>
      <div className={clsx("rounded-xl px-3.5 py-2.5 text-sm [overflow-wrap:anywhere] whitespace-pre-wrap", ROLES[turn.role] ?? "border border-line")}>
        {turn.text === "" ? <span className="text-faint italic">empty</span> : turn.text}
      </div>
    </div>
  );
}
