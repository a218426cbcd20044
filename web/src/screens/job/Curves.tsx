/** The course of a job: loss and token accuracy over its steps. */
import { useQuery } from "@tanstack/react-query";
import { CircleCheck, TriangleAlert } from "lucide-react";
import { useMemo, useState, type ReactNode } from "react";

import { checkpointsQuery, ENDED, metricsQuery, type JobMetrics, type JobNow } from "@/api/jobs";
import { Card } from "@/parts/Page";
import { Plot, type Curve, type Flag } from "@/parts/Plot";
import { Stat } from "@/parts/Stat";
import { SwitchField } from "@/parts/fields";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { count, percent } from "@/lib/format";
import { lowest, rises, smoothed, type Values } from "@/lib/curve";

const loss = (value: number) => (value !== 0 && Math.abs(value) < 0.1 ? value.toPrecision(2) : String(Number(value.toFixed(2))));
const share = (value: number) => percent(value, value > 0.99 && value < 1 ? 1 : 0);

export function Curves({ now }: { now: JobNow }) {
  const metrics = useQuery(metricsQuery(now.id));
  const checkpoints = useQuery(checkpointsQuery(now.id));
  const [weight, setWeight] = useState(0.6);
  const [log, setLog] = useState(false);
  if (metrics.isPending) return <Loading lines={8} />;
  if (metrics.isError) return <ErrorBox error={metrics.error} retry={() => void metrics.refetch()} />;
  const found = metrics.data;
  if (found.steps.length === 0) return <NoSteps now={now} />;
  const kept = (checkpoints.data?.data ?? []).map((each) => each.step_number);
  return (
    <div className="flex flex-col gap-4">
      <Latest found={found} />
      <Hint found={found} now={now} />
      <Card
        title="Loss"
        actions={
          <div className="flex flex-wrap items-center gap-x-5 gap-y-2">
            <label className="flex items-center gap-2 text-sm text-soft">
              Smoothing
              <input
                type="range"
                min={0}
                max={0.98}
                step={0.02}
                value={weight}
                onChange={(event) => setWeight(Number(event.target.value))}
                className="w-28 accent-accent"
              />
              <span className="num w-8 text-xs">{weight.toFixed(2)}</span>
            </label>
            <SwitchField label="Log scale" checked={log} onChange={setLog} />
          </div>
        }
      >
        <LossPlot found={found} kept={kept} weight={weight} log={log} />
        <p className="mt-2 text-xs text-faint">
          Drag to zoom, double click for all. Shift and drag, or the wheel sideways, to pan; Ctrl and the wheel to zoom.
        </p>
      </Card>
      <Accuracy found={found} weight={weight} />
    </div>
  );
}

function NoSteps({ now }: { now: JobNow }) {
  if (ENDED.includes(now.job.status)) return <Empty title="No step was trained">The job ended before its first step.</Empty>;
  return (
    <Empty title="No step yet">
      {now.num_ahead ? `${count(now.num_ahead)} ${now.num_ahead === 1 ? "job is" : "jobs are"} ahead of this one.` : "The curve begins with the first step."}
    </Empty>
  );
}

const lastOf = (values: Values | undefined): number | null => {
  for (let index = (values?.length ?? 0) - 1; index >= 0; index -= 1) {
    const value = values?.[index];
    if (value !== null && value !== undefined) return value;
  }
  return null;
};

function Latest({ found }: { found: JobMetrics }) {
  const { figures } = found;
  const stats: [string, number | null, (value: number) => string][] = [
    ["Training loss", lastOf(figures["train_loss"]), loss],
    ["Validation loss", lastOf(figures["full_valid_loss"]) ?? lastOf(figures["valid_loss"]), loss],
    ["Training token accuracy", lastOf(figures["train_mean_token_accuracy"]), share],
    ["Validation token accuracy", lastOf(figures["full_valid_mean_token_accuracy"]) ?? lastOf(figures["valid_mean_token_accuracy"]), share],
    ["Reward margin", lastOf(figures["train_reward_margin"]), loss],
  ];
  return (
    <dl className="grid grid-cols-2 gap-4 rounded-xl border border-line bg-surface px-5 py-4 sm:grid-cols-4">
      {stats.map(([label, value, format]) =>
        value === null ? null : (
          <Stat key={label} label={label}>
            {format(value)}
          </Stat>
        ),
      )}
    </dl>
  );
}

/** What the curves say: which checkpoint is best, and whether the model learns by heart. */
function Hint({ found, now }: { found: JobMetrics; now: JobNow }) {
  const values = found.figures["full_valid_loss"];
  if (!values) return null;
  const best = lowest(values);
  const measured = values.filter((value) => value !== null).length;
  if (best === null) return null;
  const step = found.steps[best.index] ?? 0;
  const isLast = values.slice(best.index + 1).every((value) => value === null);
  if (rises(values)) {
    return (
      <Note tone="warn">
        The validation loss has risen since step {count(step)} ({loss(best.value)}) while the training loss fell: the model learns the training file by
        heart. {ENDED.includes(now.job.status) ? "The checkpoint of that step may answer better; fewer epochs may do." : "Pausing keeps what there is; fewer epochs may do."}
      </Note>
    );
  }
  if (!isLast) {
    return (
      <Note tone="warn">
        The lowest validation loss was at step {count(step)} ({loss(best.value)}), not at the end. Its checkpoint may answer better.
      </Note>
    );
  }
  if (measured < 2) return null;
  return (
    <Note tone="good">
      {ENDED.includes(now.job.status)
        ? `The validation loss fell to the end: ${loss(best.value)} at step ${count(step)} is the lowest.`
        : `The validation loss still falls: ${loss(best.value)} at step ${count(step)} is the lowest so far.`}
    </Note>
  );
}

function Note({ tone, children }: { tone: "good" | "warn"; children: ReactNode }) {
  return (
    <p className={`flex items-start gap-2.5 rounded-xl px-4 py-3 text-sm ${tone === "good" ? "bg-good-wash" : "bg-warn-wash"}`}>
      {tone === "good" ? <CircleCheck size={16} className="mt-0.5 shrink-0 text-good" /> : <TriangleAlert size={16} className="mt-0.5 shrink-0 text-warn" />}
      <span>{children}</span>
    </p>
  );
}

/** A flag at each kept checkpoint; while none is kept yet, at the end of each epoch, where they are made. */
function flagsOf(found: JobMetrics, kept: number[]): Flag[] {
  const values = found.figures["full_valid_loss"] ?? [];
  const ends = found.steps.filter((_, index) => values[index] !== null && values[index] !== undefined);
  const best = lowest(values);
  const bestStep = best === null ? null : (found.steps[best.index] ?? null);
  const steps = [...new Set([...(kept.length > 0 ? kept : ends), ...(bestStep === null ? [] : [bestStep])])].sort((a, b) => a - b);
  return steps.map((x) => ({ x, label: x === bestStep ? `best · ${count(x)}` : count(x), isBest: x === bestStep }));
}

function LossPlot({ found, kept, weight, log }: { found: JobMetrics; kept: number[]; weight: number; log: boolean }) {
  const { figures, steps } = found;
  const curves = useMemo(() => curvesOf(figures, "loss", weight), [figures, weight]);
  const keptKey = kept.join();
  const flags = useMemo(() => flagsOf(found, kept), [found, keptKey]);
  return <Plot label="Loss by step" x={steps} curves={curves} height={320} log={log} sync="job" flags={flags} format={loss} />;
}

function Accuracy({ found, weight }: { found: JobMetrics; weight: number }) {
  const { figures, steps } = found;
  const name = figures["train_mean_token_accuracy"] ? "mean_token_accuracy" : "reward_accuracy";
  const curves = useMemo(() => curvesOf(figures, name, weight), [figures, name, weight]);
  if (curves.length === 0) return null;
  const title = name === "reward_accuracy" ? "Preferred answer likelier" : "Token accuracy";
  return (
    <Card title={title}>
      <Plot label={`${title} by step`} x={steps} curves={curves} height={220} sync="job" range={[0, 1]} format={share} />
    </Card>
  );
}

function curvesOf(figures: JobMetrics["figures"], name: string, weight: number): Curve[] {
  const curves: Curve[] = [];
  const train = figures[`train_${name}`];
  const valid = figures[`valid_${name}`];
  const full = figures[`full_valid_${name}`];
  if (train && weight > 0) curves.push({ label: "training, each step", color: "--c-accent", values: train, faint: true });
  if (train) curves.push({ label: weight > 0 ? "training, smoothed" : "training", color: "--c-accent", values: smoothed(train, weight), follows: weight > 0 });
  if (valid) curves.push({ label: "validation, a batch", color: "--c-warn", values: valid, width: 1.25 });
  if (full) curves.push({ label: "validation, all", color: "--c-good", values: full, points: true, dash: [5, 4] });
  return curves;
}
