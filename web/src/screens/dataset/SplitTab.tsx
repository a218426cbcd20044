/** One file into two: rows that are alike stay on one side, so that validation measures something. */
import { keepPreviousData, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { ShieldCheck } from "lucide-react";
import { useState } from "react";

import { api, read, type Schemas } from "@/api/client";
import { splitPreviewQuery } from "@/api/data";
import { Button, buttonClass, Spinner } from "@/parts/Button";
import { Card } from "@/parts/Page";
import { TextField } from "@/parts/fields";
import { ErrorBox, Loading } from "@/parts/states";
import { bytes, count, percent, plural } from "@/lib/format";

import { useDatasetPlace } from "./Dataset";

export function SplitTab({ filename }: { filename: string }) {
  const { fileId } = useDatasetPlace();
  const [share, setShare] = useState(10);
  const [seed, setSeed] = useState("0");
  const number = /^\d{1,9}$/.test(seed) ? Number(seed) : 0;
  const preview = useQuery({ ...splitPreviewQuery(fileId, share / 100, number), placeholderData: keepPreviousData });
  const queries = useQueryClient();
  const save = useMutation({
    mutationFn: () => read(api.POST("/v1/tunesmith/data/split", { body: { file: fileId, ratio: share / 100, seed: number, dry_run: false } })),
    onSuccess: () => queries.invalidateQueries({ queryKey: ["files"], exact: true }),
  });
  return (
    <div className="grid gap-6 lg:grid-cols-[20rem_minmax(0,1fr)]">
      <Card title="Split">
        <div className="flex flex-col gap-5">
          <div>
            <label htmlFor="share" className="mb-1.5 flex justify-between text-sm font-medium">
              Share to validate with <span className="num text-soft">{share} %</span>
            </label>
            <input id="share" type="range" min={1} max={50} value={share} onChange={(event) => setShare(Number(event.target.value))} className="w-full accent-accent" />
          </div>
          <TextField label="Seed" inputMode="numeric" value={seed} onChange={(event) => setSeed(event.target.value)} help="The same file, share and seed give the same split." error={/^\d{1,9}$/.test(seed) ? null : "A whole number from 0."} />
          <Button kind="primary" busy={save.isPending} disabled={!preview.isSuccess} onClick={() => save.mutate()}>
            Save both files
          </Button>
        </div>
      </Card>
      <div className="flex min-w-0 flex-col gap-4">
        {preview.isPending && <Loading lines={4} label="Splitting" />}
        {preview.isError && <ErrorBox error={preview.error} />}
        {preview.data && <Preview found={preview.data} busy={preview.isFetching} />}
        {save.isError && <ErrorBox error={save.error} />}
        {save.data && <Saved found={save.data} filename={filename} />}
      </div>
    </div>
  );
}

function Preview({ found, busy }: { found: Schemas["Parted"]; busy: boolean }) {
  const total = found.num_train + found.num_valid;
  return (
    <Card title="What comes out" actions={busy ? <Spinner /> : undefined}>
      <div className="flex h-12 gap-1 overflow-hidden rounded-lg text-sm font-medium">
        <div className="flex items-center justify-center rounded-l-lg bg-accent px-2 text-on-accent" style={{ width: percent(found.num_train / total, 2).replace(" ", "") }}>
          <span className="truncate">train</span>
        </div>
        <div className="flex min-w-14 flex-1 items-center justify-center rounded-r-lg bg-accent-wash px-2 text-accent">valid</div>
      </div>
      <dl className="num mt-4 grid gap-x-8 gap-y-1 text-sm sm:grid-cols-2">
        <div>
          <dt className="inline text-soft">to train on: </dt>
          <dd className="inline font-medium">
            {plural(found.num_train, "row")}, {bytes(found.train_bytes)}
          </dd>
        </div>
        <div>
          <dt className="inline text-soft">to validate with: </dt>
          <dd className="inline font-medium">
            {plural(found.num_valid, "row")}, {bytes(found.valid_bytes)}
          </dd>
        </div>
      </dl>
      <p className="mt-4 flex items-start gap-2 text-sm text-good">
        <ShieldCheck size={17} className="mt-0.5 shrink-0" aria-hidden />
        <span>
          {found.num_groups > 0
            ? `${plural(found.num_groups, "group")} of rows that are alike (${plural(found.num_grouped, "row")}) stay together: nothing that was trained on is measured.`
            : "No two rows are alike: nothing that was trained on is measured."}
          {found.labels > 0 && ` Each of ${count(found.labels)} labels is split in the same share.`}
        </span>
      </p>
    </Card>
  );
}

function Saved({ found, filename }: { found: Schemas["Parted"]; filename: string }) {
  const { training_file: train, validation_file: valid } = found;
  if (!train || !valid) return null;
  return (
    <div role="status" className="flex flex-wrap items-center gap-3 rounded-xl border border-line bg-good-wash px-5 py-4 text-sm">
      <p className="min-w-0 flex-1 basis-60">
        {filename} is now{" "}
        <Link to="/data/$fileId" params={{ fileId: train.id }} className="font-medium underline">
          {train.filename}
        </Link>{" "}
        and{" "}
        <Link to="/data/$fileId" params={{ fileId: valid.id }} className="font-medium underline">
          {valid.filename}
        </Link>
        .
      </p>
      <Link to="/jobs/new" search={{ file: train.id, validation: valid.id }} className={buttonClass("primary", "sm")}>
        Train with them
      </Link>
    </div>
  );
}
