/** All jobs, newest first; two and more can be laid over each other. */
import { infiniteQueryOptions, useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { Activity, ChartSpline, Plus } from "lucide-react";
import { useMemo, useState } from "react";

import { api, read, type Schemas } from "@/api/client";
import { ENDED, jobQuery, useLiveJobs } from "@/api/jobs";
import { StatusBadge } from "@/parts/Badge";
import { Button, buttonClass } from "@/parts/Button";
import { Page } from "@/parts/Page";
import { Table, type ColumnDef } from "@/parts/Table";
import { TabBar } from "@/parts/Tabs";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { ago, compact, count, duration, when } from "@/lib/format";

type Job = Schemas["Job"];

const PAGE = 100;
const MAX_COMPARED = 6;

const listQuery = infiniteQueryOptions({
  queryKey: ["jobs", "list"],
  queryFn: ({ pageParam, signal }) =>
    read(api.GET("/v1/fine_tuning/jobs", { params: { query: { limit: PAGE, ...(pageParam === null ? {} : { after: pageParam }) } }, signal })),
  initialPageParam: null as string | null,
  getNextPageParam: (last) => (last.has_more ? last.last_id : null),
});

const SHOWN: Record<string, (job: Job) => boolean> = {
  all: () => true,
  open: (job) => !ENDED.includes(job.status),
  succeeded: (job) => job.status === "succeeded",
  failed: (job) => job.status === "failed" || job.status === "cancelled",
};

export function Jobs() {
  const jobs = useInfiniteQuery(listQuery);
  const navigate = useNavigate();
  const [which, setWhich] = useState("all");
  const [chosen, setChosen] = useState<string[]>([]);
  useLiveJobs();
  const all = jobs.data?.pages.flatMap((page) => page.data) ?? [];
  const shown = all.filter(SHOWN[which] ?? (() => true));
  const columns = useMemo(() => columnsOf(chosen, setChosen), [chosen]);
  const create = (
    <Link to="/jobs/new" search={{}} className={buttonClass("primary")}>
      <Plus size={15} /> New job
    </Link>
  );
  return (
    <Page
      title="Jobs"
      subtitle="Every training, from the queue to the tuned model."
      wide
      actions={
        <>
          <Button disabled={chosen.length < 2} onClick={() => void navigate({ to: "/compare", search: { jobs: chosen.join(",") } })}>
            <ChartSpline size={15} /> Compare{chosen.length > 1 ? ` ${chosen.length}` : ""}
          </Button>
          {create}
        </>
      }
    >
      {jobs.isPending ? (
        <Loading lines={8} />
      ) : jobs.isError ? (
        <ErrorBox error={jobs.error} retry={() => void jobs.refetch()} />
      ) : all.length === 0 ? (
        <Empty icon={<Activity size={20} />} title="No jobs yet" action={create}>
          A job takes a file of examples and a base model, and makes a model of your own.
        </Empty>
      ) : (
        <>
          <div className="mb-4">
            <TabBar
              label="Shown"
              small
              value={which}
              onChange={setWhich}
              tabs={[
                { value: "all", label: "All" },
                { value: "open", label: "Open" },
                { value: "succeeded", label: "Succeeded" },
                { value: "failed", label: "Failed or cancelled" },
              ]}
            />
          </div>
          {shown.length === 0 ? (
            <Empty title="None of these" />
          ) : (
            <Table label="Jobs" rows={shown} columns={columns} rowKey={(job) => job.id} onOpen={(job) => void navigate({ to: "/jobs/$jobId", params: { jobId: job.id }, search: {} })} />
          )}
          {jobs.hasNextPage && (
            <div className="mt-4 text-center">
              <Button busy={jobs.isFetchingNextPage} onClick={() => void jobs.fetchNextPage()}>
                Show older
              </Button>
            </div>
          )}
          <p className="mt-3 text-xs text-faint max-md:hidden">
            <kbd>j</kbd> and <kbd>k</kbd> walk, <kbd>Enter</kbd> opens, <kbd>c</kbd> begins a new job.
          </p>
        </>
      )}
    </Page>
  );
}

function columnsOf(chosen: string[], setChosen: (next: string[]) => void): ColumnDef<Job, never>[] {
  const flip = (id: string) => setChosen(chosen.includes(id) ? chosen.filter((each) => each !== id) : [...chosen, id]);
  return [
    {
      id: "compare",
      header: () => <span className="sr-only">Compare</span>,
      enableSorting: false,
      cell: ({ row }) => (
        <input
          type="checkbox"
          aria-label={`Compare ${row.original.user_provided_suffix ?? row.original.id}`}
          className="size-4 accent-accent align-middle"
          checked={chosen.includes(row.original.id)}
          disabled={!chosen.includes(row.original.id) && chosen.length >= MAX_COMPARED}
          onClick={(event) => event.stopPropagation()}
          onChange={() => flip(row.original.id)}
        />
      ),
    },
    {
      id: "name",
      header: "Job",
      accessorFn: (job) => job.user_provided_suffix ?? job.id,
      cell: ({ row }) => (
        <Link
          to="/jobs/$jobId"
          params={{ jobId: row.original.id }}
          search={{}}
          onClick={(event) => event.stopPropagation()}
          className="block min-w-32 rounded font-medium [overflow-wrap:anywhere] hover:underline"
        >
          {row.original.user_provided_suffix ?? row.original.id}
          {row.original.user_provided_suffix !== null && <span className="block font-mono text-xs font-normal text-faint">{row.original.id}</span>}
        </Link>
      ),
    },
    { id: "status", header: "Status", accessorFn: (job) => job.status, cell: ({ row }) => <Status job={row.original} /> },
    { id: "model", header: "Base", accessorFn: (job) => job.model, meta: { secondary: true }, cell: ({ row }) => <span className="[overflow-wrap:anywhere] text-soft">{row.original.model}</span> },
    { id: "method", header: "Method", accessorFn: (job) => String(job.method["type"]), meta: { secondary: true }, cell: ({ row }) => <span className="text-soft">{String(row.original.method["type"])}</span> },
    {
      id: "tokens",
      header: "Tokens",
      accessorFn: (job) => job.trained_tokens ?? 0,
      meta: { numeric: true, secondary: true },
      cell: ({ row }) => (row.original.trained_tokens === null ? "–" : compact(row.original.trained_tokens)),
    },
    {
      id: "took",
      header: "Took",
      accessorFn: (job) => (job.finished_at ?? 0) - job.created_at,
      meta: { numeric: true, secondary: true },
      cell: ({ row }) => (row.original.finished_at === null ? "–" : duration(row.original.finished_at - row.original.created_at)),
    },
    {
      id: "created",
      header: "Created",
      accessorFn: (job) => job.created_at,
      meta: { numeric: true },
      cell: ({ row }) => (
        <time className="whitespace-nowrap text-soft" title={when(row.original.created_at)}>
          {ago(row.original.created_at)}
        </time>
      ),
    },
  ] as ColumnDef<Job, never>[];
}

/** With how far it is, for a job that runs; the stream keeps that up to date. */
function Status({ job }: { job: Job }) {
  const isOpen = !ENDED.includes(job.status);
  const now = useQuery({ ...jobQuery(job.id), enabled: isOpen }).data;
  const status = isOpen ? (now?.job.status ?? job.status) : job.status;
  const total = now?.total_steps ?? 0;
  return (
    <span className="inline-flex flex-wrap items-center gap-2">
      <StatusBadge status={status} />
      {isOpen && total > 0 && now && (
        <span className="num inline-flex items-center gap-2 text-xs text-soft">
          <span className="h-1 w-16 overflow-hidden rounded-full bg-sunken" aria-hidden>
            <span className="block h-full rounded-full bg-accent" style={{ width: `${(100 * now.step) / total}%` }} />
          </span>
          {count(now.step)}/{count(total)}
        </span>
      )}
      {isOpen && now?.num_ahead ? <span className="text-xs text-soft">{count(now.num_ahead)} ahead</span> : null}
    </span>
  );
}
