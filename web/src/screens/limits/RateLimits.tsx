/** The rate limits of a project by base, and their change. */
import { useState } from "react";

import { limitsQuery, setRates, type RateLimit } from "@/api/organization";
import { Table, type ColumnDef } from "@/parts/Table";
import { TextField } from "@/parts/fields";
import { count } from "@/lib/format";

import { ChangeDialog, changeColumn } from "./ChangeDialog";

// How the API, which knows only numbers, says that there is no limit.
const NO_LIMIT = 2_147_483_647;

type Field = "max_requests_per_1_minute" | "max_requests_per_1_day" | "max_tokens_per_1_minute" | "max_fine_tuning_jobs_per_1_day";

export const FIELDS: { field: Field; label: string; meaning: string }[] = [
  {
    field: "max_requests_per_1_minute",
    label: "Requests a minute",
    meaning: "Chats, completions and embeddings. An idle project may send a whole minute's worth at once; after that as many pass as refill, evenly.",
  },
  { field: "max_requests_per_1_day", label: "Requests a day", meaning: "The same, refilled over 24 hours. A restart does not fill it." },
  {
    field: "max_tokens_per_1_minute",
    label: "Tokens a minute",
    meaning: "Prompt and answer. The prompt and max_tokens are taken when a request comes in; what it did not use goes back when it has ended.",
  },
  { field: "max_fine_tuning_jobs_per_1_day", label: "Jobs a day", meaning: "Fine-tuning jobs created on the base in the last 24 hours." },
];

const COLUMNS: ColumnDef<RateLimit, never>[] = [
  { id: "model", accessorKey: "model", header: "Base", cell: ({ row }) => <div className="min-w-28 font-mono text-xs [overflow-wrap:anywhere]">{row.original.model}</div> },
  ...FIELDS.map(
    ({ field, label }): ColumnDef<RateLimit, never> => ({
      id: field,
      accessorKey: field,
      header: label,
      meta: { numeric: true },
      cell: ({ row }) => <Amount limit={row.original[field]} />,
    }),
  ),
];

/** `projectId`: of the limits, where this session may change them. */
export function RateLimits({ limits, projectId }: { limits: RateLimit[]; projectId?: string }) {
  const [changed, setChanged] = useState<RateLimit | null>(null);
  const columns = projectId === undefined ? COLUMNS : [...COLUMNS, changeColumn(({ model }: RateLimit) => model, setChanged)];
  return (
    <>
      <Table label="Rate limits" rows={limits} columns={columns} rowKey={(limit) => limit.id} />
      {projectId !== undefined && changed && <Change projectId={projectId} limit={changed} onClose={() => setChanged(null)} />}
    </>
  );
}

const asText = (limit: number): string => (limit === NO_LIMIT ? "" : String(limit));
const asLimit = (text: string): number => (text.trim() === "" ? NO_LIMIT : Number(text));
const isLimit = (text: string): boolean => text.trim() === "" || (/^\d+$/.test(text.trim()) && Number(text) < NO_LIMIT);

function Change({ projectId, limit, onClose }: { projectId: string; limit: RateLimit; onClose: () => void }) {
  const [texts, setTexts] = useState(() => Object.fromEntries(FIELDS.map(({ field }) => [field, asText(limit[field])])) as Record<Field, string>);
  const right = FIELDS.filter(({ field }) => isLimit(texts[field]));
  const changes = Object.fromEntries(right.filter(({ field }) => asLimit(texts[field]) !== limit[field]).map(({ field }) => [field, asLimit(texts[field])]));
  return (
    <ChangeDialog
      title="Change limits"
      description={`Of this project on ${limit.model}, and on all that is tuned on it. Empty: no limit. 0: nothing passes.`}
      done={{ title: "Limits changed", detail: `${limit.model}: they hold from the next request on.` }}
      queryKey={limitsQuery(projectId).queryKey}
      valid={right.length === FIELDS.length && Object.keys(changes).length > 0}
      save={() => setRates(projectId, limit, changes)}
      onClose={onClose}
    >
      <div className="grid gap-4 sm:grid-cols-2">
        {FIELDS.map(({ field, label }) => (
          <TextField
            key={field}
            label={label}
            inputMode="numeric"
            autoComplete="off"
            placeholder="no limit"
            value={texts[field]}
            onChange={(event) => setTexts({ ...texts, [field]: event.target.value })}
            error={isLimit(texts[field]) ? null : "A whole number, or nothing."}
          />
        ))}
      </div>
    </ChangeDialog>
  );
}

function Amount({ limit }: { limit: number }) {
  if (limit === NO_LIMIT) return <span className="whitespace-nowrap text-faint">no limit</span>;
  if (limit === 0) return <span className="whitespace-nowrap text-bad">0, nothing passes</span>;
  return <>{count(limit)}</>;
}
