/** What a repair would change, row by row, before it is saved as a new file. */
import { keepPreviousData, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useMemo, useState } from "react";

import { api, read, type Schemas } from "@/api/client";
import { fixPreviewQuery, type Report } from "@/api/data";
import { Badge } from "@/parts/Badge";
import { Button } from "@/parts/Button";
import { Dialog } from "@/parts/Dialog";
import { Diff } from "@/parts/Diff";
import { useToast } from "@/parts/Toast";
import { ErrorBox, Loading } from "@/parts/states";
import { count, plural } from "@/lib/format";

import { useDatasetPlace } from "./Dataset";

const SHOWN_CHANGES = 40;

export function FixDialog({ report, first, onClose }: { report: Report; first: "safe" | string[]; onClose: () => void }) {
  const { fileId } = useDatasetPlace();
  const safe = useQuery(fixPreviewQuery(fileId, null));
  const [chosen, setChosen] = useState<string[] | null>(first === "safe" ? null : first);
  const preview = useQuery({ ...fixPreviewQuery(fileId, chosen), placeholderData: keepPreviousData });
  const save = useSave(fileId, chosen, onClose);
  const offered = useMemo(() => {
    const found = report.findings.filter((each) => each.repairable).map((each) => each.code);
    return [...new Set([...found, ...Object.keys(safe.data?.codes ?? {})])];
  }, [report, safe.data]);
  const repairs = preview.data?.repairs ?? {};
  const selected = chosen ?? offered.filter((code) => repairs[code]?.by_default);
  const toggle = (code: string) =>
    setChosen((selected.includes(code) ? selected.filter((each) => each !== code) : [...selected, code]).sort());
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      title="Fix into a new file"
      description="The uploaded file stays as it is."
      wide
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="primary" busy={save.isPending} disabled={!preview.data || preview.data.num_rows === 0 || selected.length === 0} onClick={() => save.mutate()}>
            Save as new file
          </Button>
        </>
      }
    >
      {preview.isPending && <Loading lines={5} label="Looking what would change" />}
      {preview.isError && <ErrorBox error={preview.error} />}
      {preview.data && (
        <div className="flex flex-col gap-5" aria-busy={preview.isPlaceholderData}>
          <fieldset className="flex flex-col gap-2">
            <legend className="sr-only">Repairs</legend>
            {offered.map((code) => (
              <RepairChoice key={code} code={code} info={repairs[code]} number={preview.data.codes[code]} checked={selected.includes(code)} onToggle={() => toggle(code)} />
            ))}
          </fieldset>
          <p className="text-sm">
            <strong>{plural(preview.data.num_changes, "row")}</strong> changed, {count(preview.data.num_left_out)} left out,{" "}
            {count(preview.data.num_rows)} kept in all.
            {preview.data.num_unreadable > 0 && <span className="text-warn"> {plural(preview.data.num_unreadable, "line")} cannot be read and stay as they are.</span>}
          </p>
          <ol className="flex flex-col gap-3">
            {preview.data.changes.slice(0, SHOWN_CHANGES).map((change, index) => (
              <Change key={`${change.line}-${index}`} change={change} />
            ))}
          </ol>
          {preview.data.num_changes > SHOWN_CHANGES && (
            <p className="text-sm text-faint">The first {SHOWN_CHANGES} changes are shown.</p>
          )}
        </div>
      )}
    </Dialog>
  );
}

function useSave(fileId: string, codes: string[] | null, onClose: () => void) {
  const queries = useQueryClient();
  const navigate = useNavigate();
  const notify = useToast();
  return useMutation({
    mutationFn: () => read(api.POST("/v1/tunesmith/data/fix", { body: { file: fileId, codes, dry_run: false } })),
    onSuccess: async ({ fixed_file: made }) => {
      await queries.invalidateQueries({ queryKey: ["files"], exact: true });
      onClose();
      if (!made) return;
      await navigate({ to: "/data/$fileId", params: { fileId: made.id }, search: {} });
      notify(`Saved as ${made.filename}`, { detail: "This is the new file; the one before is unchanged." });
    },
    onError: (error) => notify("The repair was not saved", { tone: "bad", detail: error.message }),
  });
}

function RepairChoice({ code, info, number, checked, onToggle }: { code: string; info: Schemas["RepairInfo"] | undefined; number: number | undefined; checked: boolean; onToggle: () => void }) {
  return (
    <label className="flex cursor-pointer items-start gap-3 rounded-lg border border-line px-3 py-2 text-sm has-checked:border-accent has-checked:bg-accent-wash">
      <input type="checkbox" checked={checked} onChange={onToggle} className="mt-1 accent-accent" />
      <span className="min-w-0 flex-1">
        <span className="font-medium">{info?.does ?? code}</span>
        <span className="block text-xs text-soft">
          {code}
          {info && (info.loses ? <span className="text-warn"> · lost: {info.loses}</span> : " · nothing is lost")}
        </span>
      </span>
      {checked && number !== undefined && <Badge>{`${count(number)} ×`}</Badge>}
    </label>
  );
}

function Change({ change }: { change: Schemas["ShownChange"] }) {
  const { before, after } = change;
  return (
    <li className="rounded-lg border border-line">
      <div className="flex flex-wrap items-center gap-2 border-b border-line px-3 py-1.5 text-xs text-faint">
        <span className="num">line {count(change.line)}</span>
        {change.codes.map((code) => (
          <Badge key={code}>{code}</Badge>
        ))}
        {change.is_cut && <span>beginning only</span>}
      </div>
      <div className="max-h-48 overflow-auto px-3 py-2 font-mono text-xs leading-relaxed">
        {after === null ? (
          <del className="rounded-sm bg-bad-wash text-bad [overflow-wrap:anywhere]">{before}</del>
        ) : (
          <Diff before={onOneLine(before)} after={after} />
        )}
      </div>
    </li>
  );
}

/** Without the line breaks of a pretty-printed object, so that only real changes differ. */
const onOneLine = (text: string): string => text.replace(/([,:])[ \t]*\n\s*/g, "$1 ").replace(/\s*\n\s*/g, "");
