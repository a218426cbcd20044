/** The files of this server, and the way to bring new ones. */
import { useQueries, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { Database, Upload as UploadIcon } from "lucide-react";
import { useEffect, useMemo, useRef, useState, type ReactNode } from "react";

import { upload, type Schemas } from "@/api/client";
import { reportQuery } from "@/api/data";
import { filesQuery, jobsQuery } from "@/api/queries";
import { Badge } from "@/parts/Badge";
import { Button, buttonClass, Spinner } from "@/parts/Button";
import { Page } from "@/parts/Page";
import { Table, type ColumnDef } from "@/parts/Table";
import { TabBar } from "@/parts/Tabs";
import { Tip } from "@/parts/Tip";
import { useToast } from "@/parts/Toast";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { ago, bytes, compact, count, when } from "@/lib/format";

type FileObject = Schemas["FileObject"];

// Larger files are read when they are opened; a list must not make the server read gigabytes.
const MAX_BYTES_IN_LIST = 2_000_000;
const MAX_REPORTS = 50;
const RESULTS = "fine-tune-results";

export function Data() {
  const { upload: opens, show = "data" } = useSearch({ from: "/shell/data" });
  const navigate = useNavigate();
  const files = useQuery(filesQuery);
  const picker = useRef<HTMLInputElement>(null);
  const { uploads, send } = useUploads();
  useEffect(() => {
    if (!opens) return;
    picker.current?.click();
    void navigate({ to: "/data", search: {}, replace: true });
  }, [opens, navigate]);
  const all = files.data?.data ?? [];
  const shown = all.filter((file) => (file.purpose === RESULTS) === (show === "results"));
  return (
    <Page
      title="Data"
      subtitle="Files to train on, checked the moment they arrive."
      actions={
        <Button kind="primary" onClick={() => picker.current?.click()}>
          <UploadIcon size={15} /> Upload
        </Button>
      }
      wide
    >
      <DropZone onFiles={send}>
        <input
          ref={picker}
          type="file"
          multiple
          className="sr-only"
          tabIndex={-1}
          aria-label="Data files"
          onChange={(event) => {
            send([...(event.target.files ?? [])]);
            event.target.value = "";
          }}
        />
        {uploads.map((each) => (
          <UploadLine key={each.key} upload={each} />
        ))}
        <TabBar
          label="Kind of files"
          value={show}
          onChange={(value) => void navigate({ to: "/data", search: value === "results" ? { show: "results" } : {}, replace: true })}
          tabs={[
            { value: "data", label: "Training data" },
            { value: "results", label: "Results of jobs" },
          ]}
        >
          {files.isPending && <Loading lines={5} />}
          {files.isError && <ErrorBox error={files.error} retry={() => void files.refetch()} />}
          {files.isSuccess && shown.length === 0 && <NoFiles results={show === "results"} pick={() => picker.current?.click()} />}
          {shown.length > 0 && <FileTable files={shown} />}
        </TabBar>
      </DropZone>
    </Page>
  );
}

function NoFiles({ results, pick }: { results: boolean; pick: () => void }) {
  if (results) return <Empty title="No results yet">Each job that ends leaves a table of its losses here.</Empty>;
  return (
    <Empty
      icon={<Database size={20} />}
      title="Bring your first file"
      action={
        <Button kind="primary" onClick={pick}>
          <UploadIcon size={15} /> Choose a file
        </Button>
      }
    >
      A JSONL file with one example a line, as OpenAI's fine-tuning takes it. Drop it anywhere on this page. You will see
      what is wrong with it, mend it in one click, and look at it token by token before anything is trained.
    </Empty>
  );
}

function FileTable({ files }: { files: FileObject[] }) {
  const navigate = useNavigate();
  const jobs = useQuery(jobsQuery);
  useReports(files);
  const uses = useMemo(() => {
    const found = new Map<string, number>();
    for (const job of jobs.data?.data ?? []) {
      for (const file of new Set([job.training_file, job.validation_file, ...job.result_files])) {
        if (file) found.set(file, (found.get(file) ?? 0) + 1);
      }
    }
    return found;
  }, [jobs.data]);
  const columns = useMemo<ColumnDef<FileObject, never>[]>(
    () => [
      {
        accessorKey: "filename",
        header: "Name",
        cell: ({ row }) => (
          <div className="min-w-0">
            <Link to="/data/$fileId" params={{ fileId: row.original.id }} className="font-medium [overflow-wrap:anywhere] hover:text-accent">
              {row.original.filename}
            </Link>
            <div className="font-mono text-xs text-faint max-md:hidden">{row.original.id}</div>
          </div>
        ),
      },
      { id: "verdict", header: "Checks", enableSorting: false, cell: ({ row }) => <Verdict file={row.original} /> },
      { id: "rows", header: "Rows", enableSorting: false, meta: { numeric: true, secondary: true }, cell: ({ row }) => <Rows file={row.original} /> },
      {
        id: "tokens",
        header: () => (
          <Tip text="As OpenAI's o200k_base counts them">
            <span>Tokens</span>
          </Tip>
        ),
        enableSorting: false,
        meta: { numeric: true, secondary: true },
        cell: ({ row }) => <Tokens file={row.original} />,
      },
      { accessorKey: "bytes", header: "Size", meta: { numeric: true, secondary: true }, cell: ({ row }) => bytes(row.original.bytes) },
      { id: "uses", header: "Jobs", accessorFn: (file) => uses.get(file.id) ?? 0, meta: { numeric: true, secondary: true }, cell: ({ row }) => uses.get(row.original.id) ?? "–" },
      {
        accessorKey: "created_at",
        header: "Added",
        meta: { secondary: true },
        cell: ({ row }) => <span title={when(row.original.created_at)}>{ago(row.original.created_at)}</span>,
      },
    ],
    [uses],
  );
  return (
    <Table
      label="Files"
      rows={files}
      columns={columns}
      rowKey={(file) => file.id}
      onOpen={(file) => void navigate({ to: "/data/$fileId", params: { fileId: file.id } })}
    />
  );
}

const isChecked = (file: FileObject) => file.bytes <= MAX_BYTES_IN_LIST && file.purpose !== RESULTS;
/** What is known of a file's checks; `useReports` asks for them. */
const useReport = (file: FileObject) => useQuery({ ...reportQuery(file.id), enabled: false });

/** Asks for the reports of a list one after the other: each takes the server a moment's work. */
function useReports(files: FileObject[]): void {
  const checked = files.filter(isChecked).slice(0, MAX_REPORTS);
  const known = useQueries({ queries: checked.map((file) => ({ ...reportQuery(file.id), enabled: false })) });
  const next = checked[known.findIndex((report) => report.isPending)];
  useQuery({ ...reportQuery(next?.id ?? ""), enabled: next !== undefined });
}

function Verdict({ file }: { file: FileObject }) {
  const report = useReport(file);
  if (!isChecked(file)) return <span className="text-faint">{file.purpose === RESULTS ? "–" : "open to check"}</span>;
  if (report.isPending) return <span className="text-faint">{report.fetchStatus === "fetching" ? <Spinner /> : "…"}</span>;
  if (report.isError) return <Badge tone="warn">not checked</Badge>;
  const errors = report.data.findings.filter((each) => each.severity === "error").length;
  const warnings = report.data.findings.filter((each) => each.severity === "warning").length;
  if (errors > 0) return <Badge tone="bad" dot>{`blocked · ${errors} to fix`}</Badge>;
  if (warnings > 0) return <Badge tone="warn" dot>{`ready · ${warnings} to look at`}</Badge>;
  return (
    <Badge tone="good" dot>
      ready
    </Badge>
  );
}

function Rows({ file }: { file: FileObject }) {
  const report = useReport(file);
  return report.data ? count(report.data.num_rows) : "–";
}

function Tokens({ file }: { file: FileObject }) {
  const tokens = useReport(file).data?.openai_tokens?.["o200k_base"];
  return tokens === undefined ? "–" : compact(tokens);
}

interface Sending {
  key: number;
  name: string;
  share: number;
  stop: () => void;
}

function useUploads() {
  const [uploads, setUploads] = useState<Sending[]>([]);
  const queries = useQueryClient();
  const navigate = useNavigate();
  const notify = useToast();
  const next = useRef(0);
  const send = (files: File[]) => {
    for (const file of files) {
      next.current += 1;
      const key = next.current;
      const abort = new AbortController();
      setUploads((current) => [...current, { key, name: file.name, share: 0, stop: () => abort.abort() }]);
      const onProgress = (share: number) =>
        setUploads((current) => current.map((each) => (each.key === key ? { ...each, share } : each)));
      upload(file, "fine-tune", onProgress, abort.signal)
        .then(async (made) => {
          await queries.invalidateQueries({ queryKey: ["files"] });
          if (files.length === 1) await navigate({ to: "/data/$fileId", params: { fileId: made.id } });
          else notify(`${made.filename} is uploaded`);
        })
        .catch((error: unknown) => notify(`${file.name} was not uploaded`, { tone: "bad", detail: String(error instanceof Error ? error.message : error) }))
        .finally(() => setUploads((current) => current.filter((each) => each.key !== key)));
    }
  };
  return { uploads, send };
}

function UploadLine({ upload: { name, share, stop } }: { upload: Sending }) {
  return (
    <div className="mb-4 rounded-xl border border-line bg-surface px-4 py-3">
      <div className="flex items-center gap-3 text-sm">
        <span className="min-w-0 flex-1 truncate font-medium">{name}</span>
        <span className="num text-faint">{share < 1 ? `${Math.floor(share * 100)} %` : "storing"}</span>
        <Button size="sm" onClick={stop}>
          Stop
        </Button>
      </div>
      <div role="progressbar" aria-label={name} aria-valuenow={Math.floor(share * 100)} className="mt-2 h-1 overflow-hidden rounded-full bg-sunken">
        <div className="h-full bg-accent" style={{ width: `${share * 100}%` }} />
      </div>
    </div>
  );
}

function DropZone({ onFiles, children }: { onFiles: (files: File[]) => void; children: ReactNode }) {
  const [depth, setDepth] = useState(0);
  return (
    <div
      className="relative min-h-[50dvh]"
      onDragEnter={(event) => {
        event.preventDefault();
        setDepth((current) => current + 1);
      }}
      onDragLeave={() => setDepth((current) => current - 1)}
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => {
        event.preventDefault();
        setDepth(0);
        onFiles([...event.dataTransfer.files]);
      }}
    >
      {children}
      {depth > 0 && (
        <div className="pointer-events-none absolute inset-0 flex items-center justify-center rounded-2xl border-2 border-dashed border-accent bg-accent-wash/90">
          <span className={buttonClass("primary")}>Drop to upload</span>
        </div>
      )}
    </div>
  );
}
