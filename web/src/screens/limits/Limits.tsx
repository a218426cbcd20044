/** How much a project may ask of each base. */
import { useQuery } from "@tanstack/react-query";
import { useSearch } from "@tanstack/react-router";
import { Gauge } from "lucide-react";

import { limitsQuery, projectsQuery, type RateLimit } from "@/api/organization";
import { CodeBlock } from "@/parts/Code";
import { Card, Page } from "@/parts/Page";
import { ProjectSelect } from "@/parts/ProjectSelect";
import { Table, type ColumnDef } from "@/parts/Table";
import { Denied, Empty, ErrorBox, isDenied, Loading } from "@/parts/states";
import { count } from "@/lib/format";

// How the API, which knows only numbers, says that there is no limit.
const NO_LIMIT = 2_147_483_647;

type Field = "max_requests_per_1_minute" | "max_requests_per_1_day" | "max_tokens_per_1_minute" | "max_fine_tuning_jobs_per_1_day";

const FIELDS: { field: Field; label: string; meaning: string }[] = [
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

export function Limits() {
  const { project } = useSearch({ from: "/shell/limits" });
  const projects = useQuery(projectsQuery);
  const shown = project ?? projects.data?.[0]?.id;
  return (
    <Page
      title="Limits"
      subtitle="How much a project may ask of each base. Models tuned on a base draw on the base's limits."
      actions={projects.data && <ProjectSelect projects={projects.data} value={shown} />}
    >
      {projects.isPending ? (
        <Loading lines={6} />
      ) : isDenied(projects.error) ? (
        <Denied title="Owners of the default project see the limits" error={projects.error}>
          Every answer of a model tells yours in its <code>x-ratelimit-…</code> headers.
        </Denied>
      ) : projects.isError ? (
        <ErrorBox error={projects.error} retry={() => void projects.refetch()} />
      ) : (
        shown !== undefined && <OfProject projectId={shown} />
      )}
    </Page>
  );
}

function OfProject({ projectId }: { projectId: string }) {
  const limits = useQuery(limitsQuery(projectId));
  if (limits.isPending) return <Loading lines={6} />;
  if (limits.isError) return <ErrorBox error={limits.error} retry={() => void limits.refetch()} />;
  if (limits.data.length === 0)
    return (
      <Empty icon={<Gauge size={20} />} title="No base to limit">
        This project may use none of the server's bases.
      </Empty>
    );
  return (
    <>
      <Table label="Limits" rows={limits.data} columns={COLUMNS} rowKey={(limit) => limit.id} />
      <div className="mt-6 grid gap-5 lg:grid-cols-2">
        <Card title="What they mean">
          <dl className="flex flex-col gap-3 text-sm">
            {FIELDS.map(({ field, label, meaning }) => (
              <div key={field}>
                <dt className="font-medium">{label}</dt>
                <dd className="text-soft">{meaning}</dd>
              </div>
            ))}
          </dl>
          <p className="mt-4 text-sm text-soft">A request beyond a limit is refused with 429 and says how long to wait; the official clients wait, and try again.</p>
        </Card>
        <Card title="Change them">
          <p className="mb-3 text-sm text-soft">
            On the server; <code>none</code> takes a limit away, <code>default</code> goes back to the settings. It holds within a second.
          </p>
          <CodeBlock label="Set a limit" code={`tunesmith limits set \\\n  ${limits.data[0]?.model ?? "BASE"} \\\n  --project ${projectId} \\\n  --requests-per-minute 60`} />
          <p className="mt-3 mb-3 text-sm text-soft">With what has been spent of them:</p>
          <CodeBlock label="Show the limits" code={`tunesmith limits show \\\n  --project ${projectId}`} />
        </Card>
      </div>
    </>
  );
}

function Amount({ limit }: { limit: number }) {
  if (limit === NO_LIMIT) return <span className="whitespace-nowrap text-faint">no limit</span>;
  if (limit === 0) return <span className="whitespace-nowrap text-bad">0, nothing passes</span>;
  return <>{count(limit)}</>;
}
