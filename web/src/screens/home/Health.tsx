/** Whether the server can do its work: its processes, its disk, its queue. */
import { useQuery } from "@tanstack/react-query";
import clsx from "clsx";
import type { ReactNode } from "react";

import type { Schemas } from "@/api/client";
import { statusQuery } from "@/api/queries";
import { Card } from "@/parts/Page";
import { ErrorBox, Loading } from "@/parts/states";
import { bytes, count, plural } from "@/lib/format";

type Tone = "good" | "warn" | "bad";

const LOW_DISK_BYTES = 2e9;
const DOTS: Record<Tone, string> = { good: "bg-good", warn: "bg-warn", bad: "bg-bad" };

export function Health() {
  const status = useQuery(statusQuery);
  return (
    <Card title="Health">
      {status.isPending && <Loading />}
      {status.isError && <ErrorBox error={status.error} retry={() => void status.refetch()} />}
      {status.data && <Lines status={status.data} />}
    </Card>
  );
}

function Lines({ status }: { status: Schemas["Status"] }) {
  const { engine, worker, disk, jobs } = status;
  const waiting = (jobs["queued"] ?? 0) + (jobs["validating_files"] ?? 0);
  const running = jobs["running"] ?? 0;
  const used = disk.total_bytes - disk.free_bytes;
  return (
    <dl className="flex flex-col divide-y divide-line">
      <Line
        name="Engine"
        tone={engine.state === "ready" ? "good" : engine.state === "unreachable" ? "bad" : "warn"}
        value={engine.state}
        note={engine.message ?? `${plural(engine.loaded.length, "model")} loaded, ${bytes(engine.model_bytes)} of ${bytes(engine.budget_bytes)}`}
      >
        {engine.budget_bytes > 0 && <Meter label="Memory of models" share={engine.model_bytes / engine.budget_bytes} />}
      </Line>
      <Line
        name="Worker"
        tone={worker.is_alive ? "good" : "bad"}
        value={worker.is_alive ? (running > 0 ? "training" : "waiting for jobs") : "not there"}
        note={worker.is_alive ? `trains ${plural(worker.slots, "job")} at a time` : "jobs wait until one is started; see log/worker.log"}
      />
      <Line name="Disk" tone={disk.free_bytes < LOW_DISK_BYTES ? "bad" : "good"} value={`${bytes(disk.free_bytes)} free`} note={`of ${bytes(disk.total_bytes)}`}>
        <Meter label="Disk" share={used / disk.total_bytes} />
      </Line>
      <Line
        name="Queue"
        tone={waiting > 5 ? "warn" : "good"}
        value={`${count(running)} training, ${count(waiting)} waiting`}
        note={`${plural(engine.num_running, "answer")} being written, ${count(engine.num_waiting)} waiting`}
      />
    </dl>
  );
}

function Line({ name, tone, value, note, children }: { name: string; tone: Tone; value: string; note: string; children?: ReactNode }) {
  return (
    <div className="flex items-start gap-3 py-2.5 text-sm">
      <span aria-hidden className={clsx("mt-1.5 size-2 shrink-0 rounded-full", DOTS[tone])} />
      <dt className="w-16 shrink-0 text-soft">{name}</dt>
      <dd className="min-w-0 flex-1">
        <span className="num font-medium">{value}</span>
        <span className="num block text-xs text-faint [overflow-wrap:anywhere]">{note}</span>
        {children}
      </dd>
    </div>
  );
}

function Meter({ label, share }: { label: string; share: number }) {
  const percentage = Math.min(100, Math.round(100 * share));
  return (
    <div role="meter" aria-label={label} aria-valuenow={percentage} aria-valuemin={0} aria-valuemax={100} className="mt-1.5 h-1 overflow-hidden rounded-full bg-sunken">
      <div className={clsx("h-full rounded-full", percentage > 95 ? "bg-bad" : "bg-accent")} style={{ width: `${percentage}%` }} />
    </div>
  );
}
