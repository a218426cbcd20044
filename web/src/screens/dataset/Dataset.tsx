/** One file: what is wrong with it, its rows, its tokens, its numbers, and its two halves. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { Download, Ellipsis, Play, Trash2 } from "lucide-react";
import { useState } from "react";

import { api, read } from "@/api/client";
import { fileQuery, modelsQuery } from "@/api/queries";
import { buttonClass, IconButton } from "@/parts/Button";
import { Confirm } from "@/parts/Dialog";
import { Menu, MenuItem } from "@/parts/Menu";
import { Page } from "@/parts/Page";
import { TabBar } from "@/parts/Tabs";
import { useToast } from "@/parts/Toast";
import { ErrorBox, Loading } from "@/parts/states";
import { saveFile } from "@/lib/download";
import { ago, bytes, when } from "@/lib/format";
import type { DatasetSearch, DatasetTab } from "@/router";

import { Explore } from "./Explore";
import { ReportTab } from "./ReportTab";
import { SplitTab } from "./SplitTab";
import { StatsTab } from "./StatsTab";
import { TokensTab } from "./TokensTab";

const TABS: { value: DatasetTab; label: string }[] = [
  { value: "report", label: "Report" },
  { value: "explore", label: "Explore" },
  { value: "tokens", label: "Tokens" },
  { value: "stats", label: "Stats" },
  { value: "split", label: "Split" },
];

/** Where a tab is in the URL, and the way to another place of it. */
export function useDatasetPlace() {
  const search = useSearch({ from: "/shell/data/$fileId" });
  const { fileId } = useParams({ from: "/shell/data/$fileId" });
  const navigate = useNavigate();
  const go = (change: Change, replace = false) =>
    void navigate({ to: "/data/$fileId", params: { fileId }, search: clean({ ...search, ...change }), replace, resetScroll: false });
  return { search, fileId, go };
}

type Change = { [Key in keyof DatasetSearch]?: DatasetSearch[Key] | undefined };

const clean = (search: Change): DatasetSearch =>
  Object.fromEntries(Object.entries(search).filter(([, value]) => value !== undefined && value !== ""));

/** The base that rows are counted with: the one in the URL, or the server's first. */
export function useBase(): { base: string | null; bases: string[] } {
  const { search } = useDatasetPlace();
  const models = useQuery(modelsQuery);
  const bases = (models.data?.data ?? []).filter((model) => model.owned_by === "system").map((model) => model.id);
  return { base: search.base ?? bases[0] ?? null, bases };
}

export function Dataset() {
  const { search, fileId, go } = useDatasetPlace();
  const file = useQuery(fileQuery(fileId));
  if (file.isPending) {
    return (
      <Page title="Data">
        <Loading lines={6} />
      </Page>
    );
  }
  if (file.isError) {
    return (
      <Page title="Data" above={<Link to="/data">Data</Link>}>
        <ErrorBox error={file.error} retry={() => void file.refetch()} />
      </Page>
    );
  }
  const tab = TABS.some((each) => each.value === search.tab) ? (search.tab as DatasetTab) : "report";
  const { filename, bytes: size, created_at } = file.data;
  return (
    <Page
      title={filename}
      above={
        <Link to="/data" className="hover:text-ink">
          Data
        </Link>
      }
      subtitle={
        <span>
          {bytes(size)} · added <span title={when(created_at)}>{ago(created_at)}</span> · <code className="font-mono text-xs">{fileId}</code>
        </span>
      }
      actions={<Actions fileId={fileId} filename={filename} />}
      wide
    >
      <TabBar label="View" value={tab} onChange={(value) => go({ tab: value as DatasetTab })} tabs={TABS}>
        {tab === "report" && <ReportTab />}
        {tab === "explore" && <Explore />}
        {tab === "tokens" && <TokensTab />}
        {tab === "stats" && <StatsTab />}
        {tab === "split" && <SplitTab filename={filename} />}
      </TabBar>
    </Page>
  );
}

function Actions({ fileId, filename }: { fileId: string; filename: string }) {
  const [asks, setAsks] = useState(false);
  const queries = useQueryClient();
  const navigate = useNavigate();
  const notify = useToast();
  const remove = useMutation({
    mutationFn: () => read(api.DELETE("/v1/files/{file_id}", { params: { path: { file_id: fileId } } })),
    onSuccess: async () => {
      await navigate({ to: "/data" });
      await queries.invalidateQueries({ queryKey: ["files"], exact: true });
      notify(`${filename} is deleted`);
    },
    onError: (error) => notify("The file was not deleted", { tone: "bad", detail: error.message }),
  });
  return (
    <>
      <Menu
        trigger={
          <IconButton label="More">
            <Ellipsis size={17} />
          </IconButton>
        }
      >
        <MenuItem onSelect={() => void download(fileId, filename)}>
          <Download size={15} /> Download
        </MenuItem>
        <MenuItem danger onSelect={() => setAsks(true)}>
          <Trash2 size={15} /> Delete
        </MenuItem>
      </Menu>
      <Link to="/jobs/new" search={{ file: fileId }} className={buttonClass("primary")}>
        <Play size={15} /> Train on it
      </Link>
      <Confirm open={asks} onOpenChange={setAsks} title="Delete this file?" action="Delete" busy={remove.isPending} onConfirm={() => remove.mutate()}>
        {filename} disappears from the server. A job that is using it keeps its rows until it ends.
      </Confirm>
    </>
  );
}

async function download(fileId: string, filename: string): Promise<void> {
  const response = await fetch(`/v1/files/${fileId}/content?format=csv`);
  saveFile(filename, await response.blob());
}
