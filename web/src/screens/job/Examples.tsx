/** The rows of the training file, by how well they were learned; one opened token by token. */
import { useInfiniteQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import clsx from "clsx";
import { ArrowDownRight, ArrowUpRight } from "lucide-react";
import { useEffect } from "react";

import { ENDED, rowsQuery, type JobNow, type JobRow } from "@/api/jobs";
import { TabBar } from "@/parts/Tabs";
import { VirtualList } from "@/parts/VirtualList";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { isTyping } from "@/parts/rowkeys";
import { count } from "@/lib/format";

import { Heat } from "./Heat";

const ROW_HEIGHT = 40;

export function Examples({ now }: { now: JobNow }) {
  const search = useSearch({ from: "/shell/jobs/$jobId" });
  const order = search.order === "change" ? "change" : "loss";
  const navigate = useNavigate();
  const rows = useInfiniteQuery(rowsQuery(now.id, order));
  const all = rows.data?.pages.flatMap((page) => page.data) ?? [];
  const go = (change: { row?: number; order?: string; by?: string }) =>
    void navigate({ to: "/jobs/$jobId", params: { jobId: now.id }, search: { ...search, ...change }, replace: true });
  const chosen = search.row ?? all[0]?.row;
  const place = all.findIndex((row) => row.row === chosen);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key !== "j" && event.key !== "k") return;
      const next = all[place + (event.key === "j" ? 1 : -1)];
      if (next) go({ row: next.row });
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  });
  if (rows.isPending) return <Loading lines={8} />;
  if (rows.isError) return <ErrorBox error={rows.error} retry={() => void rows.refetch()} />;
  if (all.length === 0) {
    return (
      <Empty title="No losses yet">
        {ENDED.includes(now.job.status)
          ? "The job ended before its first checkpoint; each row's loss is kept with the checkpoints."
          : "Each row's loss is noted as it is trained, and shown from the first checkpoint on."}
      </Empty>
    );
  }
  return (
    <div className="grid gap-5 xl:grid-cols-[26rem_minmax(0,1fr)]">
      <section className="min-w-0 self-start rounded-xl border border-line bg-surface">
        <div className="flex flex-wrap items-center justify-between gap-2 border-b border-line px-4 py-2.5">
          <h2 className="text-sm font-semibold">Rows</h2>
          <TabBar
            label="Sorted by"
            small
            value={order}
            onChange={(value) => go({ order: value })}
            tabs={[
              { value: "loss", label: "Highest loss" },
              { value: "change", label: "Least learned" },
            ]}
          />
        </div>
        <div className="num grid grid-cols-[minmax(0,1fr)_4.5rem_4.5rem_5.25rem] gap-2 border-b border-line px-4 py-2 text-xs text-faint">
          <span>Row</span>
          <span className="text-right">First</span>
          <span className="text-right">Last</span>
          <span className="text-right">Change</span>
        </div>
        <VirtualList
          label="Rows by loss"
          numRows={all.length}
          rowHeight={ROW_HEIGHT}
          focus={place < 0 ? null : place}
          className="h-[24rem] xl:h-[calc(100dvh-26rem)] xl:min-h-96"
          onRange={(_, last) => {
            if (last > all.length - 40 && rows.hasNextPage && !rows.isFetchingNextPage) void rows.fetchNextPage();
          }}
        >
          {(index) => {
            const row = all[index];
            return row ? <Line row={row} isChosen={row.row === chosen} onOpen={() => go({ row: row.row })} /> : null;
          }}
        </VirtualList>
        <p className="border-t border-line px-4 py-2 text-xs text-faint">
          The mean loss of a row's answer tokens, in its first epoch and in its last. <kbd>j</kbd> and <kbd>k</kbd> walk.
        </p>
      </section>
      {chosen !== undefined && <Heat now={now} row={chosen} />}
    </div>
  );
}

function Line({ row, isChosen, onOpen }: { row: JobRow; isChosen: boolean; onOpen: () => void }) {
  return (
    <button
      type="button"
      aria-current={isChosen || undefined}
      onClick={onOpen}
      className={clsx(
        "num grid h-full w-full grid-cols-[minmax(0,1fr)_4.5rem_4.5rem_5.25rem] items-center gap-2 border-b border-line px-4 text-left text-sm focus-visible:-outline-offset-2",
        isChosen ? "bg-accent-wash" : "hover:bg-hover/60",
      )}
    >
      <span className="text-soft">{count(row.row)}</span>
      <span className="text-right text-soft">{shown(row.first_loss)}</span>
      <span className="text-right font-medium">{shown(row.last_loss)}</span>
      <Change value={row.change} />
    </button>
  );
}

const shown = (value: number | null): string => (value === null ? "–" : value.toFixed(value < 0.1 ? 3 : 2));

function Change({ value }: { value: number | null }) {
  if (value === null) return <span className="text-right text-faint">–</span>;
  const isWorse = value > 0;
  return (
    <span className={clsx("inline-flex items-center justify-end gap-0.5", isWorse ? "text-bad" : "text-good")}>
      {isWorse ? <ArrowUpRight size={13} aria-hidden /> : <ArrowDownRight size={13} aria-hidden />}
      {isWorse ? "+" : "−"}
      {Math.abs(value).toFixed(2)}
    </span>
  );
}
