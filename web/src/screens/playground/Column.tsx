/** One model's column: which it is, what it answers, how long that took, what can be done with it. */
import { useQuery } from "@tanstack/react-query";
import { Ellipsis, X } from "lucide-react";

import type { Schemas } from "@/api/client";
import { statusQuery } from "@/api/queries";
import { Badge } from "@/parts/Badge";
import { IconButton } from "@/parts/Button";
import { CopyButton } from "@/parts/Code";
import { Menu, MenuItem } from "@/parts/Menu";
import { Select, TextArea, type Option } from "@/parts/fields";
import { ErrorBox } from "@/parts/states";
import { count } from "@/lib/format";
import { kindOf } from "@/screens/models/tree";

import { AnswerText, type View } from "./AnswerText";
import { isOpen, type Answer } from "./ask";
import type { Example } from "./draft";
import type { Saving } from "./SaveDialog";

interface ColumnProps {
  number: number;
  model: string;
  models: Schemas["Model"][];
  answer: Answer | undefined;
  /** Column 1's, for the others. */
  first: Answer | undefined;
  view: View;
  /** Null: the prompt is shared. */
  prompt: string | null;
  onPrompt: (prompt: string) => void;
  onRun: () => void;
  onModel: (name: string) => void;
  onRemove: (() => void) | null;
  onCode: () => void;
  onSave: (saving: Saving) => void;
  onExample: (example: Example) => void;
}

export function Column(props: ColumnProps) {
  const { number, model, models, answer, first, view, prompt } = props;
  return (
    <section aria-label={`Column ${number}`} className="flex min-w-0 flex-col rounded-xl border border-line bg-surface">
      <div className="flex items-center gap-1 border-b border-line p-2">
        <span className="num w-6 shrink-0 text-center text-xs text-faint">{number}</span>
        <Select
          aria-label={`Model of column ${number}`}
          className="min-w-0 flex-1 text-ellipsis"
          value={model}
          title={model}
          options={optionsOf(models, model)}
          onChange={(event) => props.onModel(event.target.value)}
        />
        <Actions {...props} />
        {props.onRemove && (
          <IconButton label={`Remove column ${number}`} onClick={props.onRemove}>
            <X size={15} />
          </IconButton>
        )}
      </div>
      {prompt !== null && (
        <div className="border-b border-line p-3">
          <TextArea
            label={`Prompt of column ${number}`}
            rows={3}
            value={prompt}
            onChange={(event) => props.onPrompt(event.target.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) props.onRun();
            }}
          />
        </div>
      )}
      <p className="border-b border-line px-4 py-1.5 font-mono text-xs text-faint [overflow-wrap:anywhere]">{model}</p>
      <div className="min-h-28 flex-1 px-4 py-3" aria-busy={isOpen(answer)}>
        {answer === undefined ? (
          <Cold model={model} />
        ) : (
          <>
            {answer.state === "waiting" && <Waiting />}
            {answer.state !== "waiting" && !(answer.state === "failed" && answer.text === "") && <AnswerText answer={answer} view={view} first={first} />}
            {answer.state === "failed" && (
              <div className={answer.text === "" ? "" : "mt-3"}>
                <ErrorBox error={answer.error} />
              </div>
            )}
          </>
        )}
      </div>
      {answer && answer.state !== "waiting" && <Figures answer={answer} number={number} />}
    </section>
  );
}

const GROUPS = [
  ["base", "BASE"],
  ["tuned", "FINE-TUNES"],
  ["checkpoint", "CHECKPOINTS"],
] as const;

function optionsOf(models: Schemas["Model"][], chosen: string): Option[] {
  const options: Option[] = GROUPS.flatMap(([kind, group]) =>
    models
      .filter((model) => kindOf(model) === kind)
      .sort((a, b) => (kind === "base" ? 0 : b.created - a.created))
      .map((model) => ({ value: model.id, label: model.id, group })),
  );
  return models.some((model) => model.id === chosen) ? options : [{ value: chosen, label: `${chosen} (not on this server)` }, ...options];
}

function Cold({ model }: { model: string }) {
  const status = useQuery(statusQuery);
  const isCold = status.data !== undefined && !status.data.engine.loaded.includes(model);
  return <p className="text-sm text-faint">{isCold ? "Not in memory: its first answer takes a moment longer." : "Its answer comes here."}</p>;
}

function Waiting() {
  return (
    <p role="status" className="text-sm text-faint motion-safe:animate-[shimmer_1.6s_ease-in-out_infinite]">
      waiting for the first token
    </p>
  );
}

const FINISHES: Record<string, string> = { length: "cut off: longest answer reached", content_filter: "stopped by a filter" };

// Of what came at once no speed can be told.
const MIN_WRITING_MS = 200;

const inTime = (ms: number): string => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`);

function Figures({ answer, number }: { answer: Answer; number: number }) {
  const { usage, firstMs, totalMs, finish, state } = answer;
  const cached = usage?.prompt_tokens_details?.cached_tokens ?? 0;
  const writingMs = firstMs === null || totalMs === null ? 0 : totalMs - firstMs;
  const perS = usage && writingMs > MIN_WRITING_MS ? ((usage.completion_tokens - 1) * 1000) / writingMs : null;
  return (
    <div className="num flex min-h-9 flex-wrap items-center gap-x-4 gap-y-1 border-t border-line px-4 py-2 text-xs text-soft">
      {firstMs !== null && <span title="From the request to the first token">first token {inTime(firstMs)}</span>}
      {totalMs !== null && <span>total {inTime(totalMs)}</span>}
      {usage && (
        <span title={cached > 0 ? `${count(cached)} of the prompt's were known from before` : undefined}>
          {count(usage.prompt_tokens)} → {count(usage.completion_tokens)} tokens
        </span>
      )}
      {perS !== null && <span>{perS.toFixed(perS < 10 ? 1 : 0)} tokens/s</span>}
      {finish !== null && FINISHES[finish] !== undefined && <Badge tone="warn">{FINISHES[finish]}</Badge>}
      {state === "stopped" && <Badge>stopped</Badge>}
      {answer.text !== "" && (
        <span className="-my-1.5 ml-auto">
          <CopyButton text={answer.text} label={`Copy the answer of column ${number}`} />
        </span>
      )}
    </div>
  );
}

function Actions({ number, answer, onCode, onSave, onExample }: ColumnProps) {
  const prompt = answer?.turns[answer.turns.length - 1]?.content ?? "";
  const isThere = answer !== undefined && !isOpen(answer) && answer.text !== "";
  return (
    <Menu
      trigger={
        <IconButton label={`More for column ${number}`}>
          <Ellipsis size={16} />
        </IconButton>
      }
    >
      <MenuItem onSelect={onCode}>View code</MenuItem>
      <MenuItem disabled={!isThere} onSelect={() => answer && onSave({ kind: "test", answer })}>
        Save as test case
      </MenuItem>
      <MenuItem disabled={!isThere} onSelect={() => answer && onSave({ kind: "row", answer })}>
        Add corrected answer to data
      </MenuItem>
      <MenuItem disabled={!isThere} onSelect={() => answer && onExample({ user: prompt, assistant: answer.text })}>
        Use as an example
      </MenuItem>
    </Menu>
  );
}
