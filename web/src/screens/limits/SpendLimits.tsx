/** What a project and its keys may spend in a month, and the change of it. */
import { useState } from "react";

import { setSpending, spendingQuery, type SpendLimit } from "@/api/organization";
import { Badge } from "@/parts/Badge";
import { Table, type ColumnDef } from "@/parts/Table";
import { TextField } from "@/parts/fields";
import { dollars } from "@/lib/format";

import { ChangeDialog, changeColumn } from "./ChangeDialog";

const COLUMNS: ColumnDef<SpendLimit, never>[] = [
  {
    id: "name",
    accessorKey: "name",
    header: "Whose",
    cell: ({ row: { original: limit } }) => (
      <div className="min-w-28">
        <div className="flex flex-wrap items-center gap-x-2">
          <span className="font-medium [overflow-wrap:anywhere]">{limit.name}</span>
          <Badge>{limit.owner === "project" ? "project" : "key"}</Badge>
        </div>
        <div className="font-mono text-xs text-faint [overflow-wrap:anywhere]">{limit.id}</div>
      </div>
    ),
  },
  {
    id: "usd_per_month",
    accessorKey: "usd_per_month",
    header: "A month",
    meta: { numeric: true },
    cell: ({ row: { original: limit } }) =>
      limit.usd_per_month === null ? (
        <span className="whitespace-nowrap text-faint">no limit</span>
      ) : (
        <>
          {dollars(limit.usd_per_month)}
          {limit.is_default && <div className="text-xs text-faint">by the settings</div>}
        </>
      ),
  },
  { id: "usd_spent", accessorKey: "usd_spent", header: "Spent", meta: { numeric: true }, cell: ({ row }) => <Spent limit={row.original} /> },
  { id: "usd_reserved", accessorKey: "usd_reserved", header: "Reserved by jobs", meta: { numeric: true }, cell: ({ row }) => dollars(row.original.usd_reserved) },
];

/** `projectId`: of the limits, where this session may change them. */
export function SpendLimits({ limits, projectId }: { limits: SpendLimit[]; projectId?: string }) {
  const [changed, setChanged] = useState<SpendLimit | null>(null);
  const columns = projectId === undefined ? COLUMNS : [...COLUMNS, changeColumn(({ name }: SpendLimit) => `what ${name} may spend`, setChanged)];
  return (
    <>
      <Table label="Spend limits" rows={limits} columns={columns} rowKey={(limit) => limit.id} />
      {projectId !== undefined && changed && <Change projectId={projectId} limit={changed} onClose={() => setChanged(null)} />}
    </>
  );
}

function Spent({ limit }: { limit: SpendLimit }) {
  const gone = limit.usd_per_month !== null && limit.usd_spent + limit.usd_reserved >= limit.usd_per_month;
  return (
    <>
      {dollars(limit.usd_spent)}
      {gone && <div className="text-xs text-bad">nothing is left</div>}
    </>
  );
}

const isAmount = (text: string): boolean => text.trim() === "" || (/^\d+(\.\d{1,9})?$/.test(text.trim()) && Number(text) <= 1e9);

function Change({ projectId, limit, onClose }: { projectId: string; limit: SpendLimit; onClose: () => void }) {
  const before = limit.is_default || limit.usd_per_month === null ? "" : String(limit.usd_per_month);
  const [text, setText] = useState(before);
  return (
    <ChangeDialog
      title="Change the spend limit"
      description={`What ${limit.name} may spend in a calendar month of UTC. A request or a job that could pass it is refused.`}
      done={{ title: "Spend limit changed", detail: `${limit.name}: it holds from the next request on.` }}
      queryKey={spendingQuery(projectId).queryKey}
      valid={isAmount(text) && text.trim() !== before}
      save={() => setSpending(projectId, limit, text.trim() === "" ? null : Number(text))}
      onClose={onClose}
    >
      <TextField
        label="US dollars a month"
        inputMode="decimal"
        autoComplete="off"
        autoFocus
        placeholder={limit.owner === "project" ? "as the server's settings say" : "no limit"}
        value={text}
        onChange={(event) => setText(event.target.value)}
        error={isAmount(text) ? null : "An amount such as 25 or 0.50, or nothing."}
        help={limit.owner === "project" ? "Empty: as the server's settings say. 0: nothing that costs passes." : "Empty: no limit but the project's. 0: nothing that costs passes."}
      />
    </ChangeDialog>
  );
}
