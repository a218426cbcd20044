/** What goes before the prompt, and how tokens are chosen. */
import { Plus, X } from "lucide-react";

import { Button, IconButton } from "@/parts/Button";
import { Card } from "@/parts/Page";
import { TextArea, TextField } from "@/parts/fields";
import type { PlaygroundSearch } from "@/router";

import { DEFAULT_MAX, type Draft, type SearchChange } from "./draft";

interface SideProps {
  draft: Draft;
  onDraft: (part: Partial<Draft>) => void;
  search: PlaygroundSearch;
  onSearch: (part: SearchChange) => void;
}

export function Side({ draft, onDraft, search, onSearch }: SideProps) {
  return (
    <div className="grid content-start gap-4 md:max-xl:grid-cols-2">
      <Card title="Before the prompt">
        <TextArea
          label="System prompt"
          rows={3}
          value={draft.system}
          placeholder="How the model should behave"
          onChange={(event) => onDraft({ system: event.target.value })}
        />
        <Examples draft={draft} onDraft={onDraft} />
      </Card>
      <Card title="Sampling">
        <div className="grid grid-cols-2 gap-3">
          {FIELDS.map(({ name, label, hint }) => (
            <TextField
              key={name}
              label={label}
              inputMode="decimal"
              placeholder={hint}
              value={search[name] ?? (name === "max" ? DEFAULT_MAX : "")}
              onChange={(event) => onSearch({ [name]: event.target.value === "" && name !== "max" ? undefined : event.target.value })}
            />
          ))}
        </div>
        <div className="mt-3">
          <TextArea
            label="Stop at"
            rows={2}
            className="min-h-0"
            help="Up to four texts, one a line."
            value={search.stop ?? ""}
            onChange={(event) => onSearch({ stop: event.target.value === "" ? undefined : event.target.value })}
          />
        </div>
      </Card>
    </div>
  );
}

const FIELDS: { name: "temperature" | "top_p" | "max" | "seed" | "frequency" | "presence"; label: string; hint: string }[] = [
  { name: "temperature", label: "Temperature", hint: "1" },
  { name: "top_p", label: "Top P", hint: "1" },
  { name: "max", label: "Longest answer", hint: "no limit" },
  { name: "seed", label: "Seed", hint: "random" },
  { name: "frequency", label: "Frequency penalty", hint: "0" },
  { name: "presence", label: "Presence penalty", hint: "0" },
];

function Examples({ draft: { examples }, onDraft }: { draft: Draft; onDraft: (part: Partial<Draft>) => void }) {
  const change = (index: number, part: Partial<Draft["examples"][number]>) =>
    onDraft({ examples: examples.map((each, place) => (place === index ? { ...each, ...part } : each)) });
  return (
    <div className="mt-4">
      <div className="flex items-center justify-between gap-2">
        <h3 className="text-sm font-medium">Examples</h3>
        <Button size="sm" onClick={() => onDraft({ examples: [...examples, { user: "", assistant: "" }] })}>
          <Plus size={13} /> Add
        </Button>
      </div>
      {examples.length === 0 && <p className="mt-1 text-xs text-faint">Questions with their right answers, shown to the model before the prompt.</p>}
      <ol className="mt-2 flex flex-col gap-3">
        {examples.map((example, index) => (
          <li key={index} className="relative rounded-lg border border-line p-3">
            <IconButton
              label={`Remove example ${index + 1}`}
              className="absolute top-1 right-1"
              onClick={() => onDraft({ examples: examples.filter((_, place) => place !== index) })}
            >
              <X size={14} />
            </IconButton>
            <TextArea label={`User ${index + 1}`} rows={2} className="min-h-0" value={example.user} onChange={(event) => change(index, { user: event.target.value })} />
            <div className="mt-2">
              <TextArea
                label={`Assistant ${index + 1}`}
                rows={2}
                className="min-h-0"
                value={example.assistant}
                onChange={(event) => change(index, { assistant: event.target.value })}
              />
            </div>
          </li>
        ))}
      </ol>
    </div>
  );
}
