/** Jobs side by side: their curves over each other, what differs in their configurations, what they cost. */
import { useQueries } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import clsx from "clsx";
import { ChartSpline, X } from "lucide-react";
import { useMemo, useState } from "react";

import type { Schemas } from "@/api/client";
import { jobQuery, metricsQuery, recipeQuery, useLiveJobs, type JobMetrics, type JobNow } from "@/api/jobs";
import { StatusBadge } from "@/parts/Badge";
import { buttonClass, IconButton } from "@/parts/Button";
import { Card, Page } from "@/parts/Page";
import { Plot, type Curve } from "@/parts/Plot";
import { TabBar } from "@/parts/Tabs";
import { SwitchField } from "@/parts/fields";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { bytes, count, duration, percent } from "@/lib/format";
import { lowest, smoothed, type Values } from "@/lib/curve";

type Recipe = Schemas["Recipe"];

interface Compared {
  now: JobNow;
  metrics: JobMetrics;
  recipe: Recipe;
  color: string;
}

const MAX = 6;
const colorAt = (index: number): string => `--c-job-${(index % MAX) + 1}`;

export function Compare() {
  const { jobs: given = "" } = useSearch({ from: "/shell/compare" });
  const ids = [...new Set(given.split(",").filter(Boolean))].slice(0, MAX);
  const jobs = useQueries({ queries: ids.map((id) => jobQuery(id)) });
  const metrics = useQueries({ queries: ids.map((id) => metricsQuery(id)) });
  const recipes = useQueries({ queries: ids.map((id) => recipeQuery(id)) });
  const navigate = useNavigate();
  useLiveJobs();
  const all = [...jobs, ...metrics, ...recipes];
  const failed = all.find((each) => each.isError);
  const above = <Link to="/jobs">Jobs</Link>;
  if (ids.length < 2) {
    return (
      <Page title="Compare jobs" above={above}>
        <Empty icon={<ChartSpline size={20} />} title="Choose two jobs or more" action={<Link to="/jobs" className={buttonClass("primary")}>To the jobs</Link>}>
          Tick them in the list of jobs, and choose Compare.
        </Empty>
      </Page>
    );
  }
  if (failed) {
    return (
      <Page title="Compare jobs" above={above}>
        <ErrorBox error={failed.error} retry={() => all.forEach((each) => each.isError && void each.refetch())} />
      </Page>
    );
  }
  if (all.some((each) => !each.data)) {
    return (
      <Page title="Compare jobs" above={above}>
        <Loading lines={8} />
      </Page>
    );
  }
  const compared = ids.map((_, index) => ({
    now: jobs[index]?.data,
    metrics: metrics[index]?.data,
    recipe: recipes[index]?.data,
    color: colorAt(index),
  })) as Compared[];
  const drop = (id: string) => void navigate({ to: "/compare", search: { jobs: ids.filter((each) => each !== id).join(",") }, replace: true });
  return (
    <Page title="Compare jobs" above={above} wide>
      <div className="flex flex-col gap-4">
        <ul className="flex flex-wrap gap-2">
          {compared.map(({ now, color }) => (
            <li key={now.id} className="flex min-w-0 items-center gap-2 rounded-xl border border-line bg-surface py-1.5 pr-1 pl-3 text-sm">
              <span aria-hidden className="size-2.5 shrink-0 rounded-full" style={{ background: `var(${color})` }} />
              <Link to="/jobs/$jobId" params={{ jobId: now.id }} search={{}} className="min-w-0 truncate font-medium hover:underline">
                {nameOf(now)}
              </Link>
              <StatusBadge status={now.job.status} />
              <IconButton label={`Leave out ${nameOf(now)}`} onClick={() => drop(now.id)}>
                <X size={14} />
              </IconButton>
            </li>
          ))}
        </ul>
        <Overlay compared={compared} />
        <Results compared={compared} />
        <Configurations compared={compared} />
      </div>
    </Page>
  );
}

const nameOf = (now: JobNow): string => now.job.user_provided_suffix ?? now.id.slice(0, 14);

const FIGURES = [
  { value: "train_loss", label: "Training loss" },
  { value: "full_valid_loss", label: "Validation loss" },
  { value: "valid_loss", label: "Validation loss, a batch" },
  { value: "train_mean_token_accuracy", label: "Training accuracy" },
  { value: "full_valid_mean_token_accuracy", label: "Validation accuracy" },
];

function Overlay({ compared }: { compared: Compared[] }) {
  const there = FIGURES.filter(({ value }) => compared.some(({ metrics }) => metrics.figures[value]));
  const [figure, setFigure] = useState("train_loss");
  const [log, setLog] = useState(false);
  const [byShare, setByShare] = useState(false);
  const key = compared.map(({ now, metrics }) => `${now.id}:${metrics.steps.length}`).join();
  const { x, curves } = useMemo(() => joined(compared, figure, byShare), [key, figure, byShare]);
  const isShare = figure.endsWith("accuracy");
  if (there.length === 0) return <Empty title="None of these jobs has made a step yet" />;
  return (
    <Card
      title={
        <TabBar label="Figure" small value={figure} onChange={setFigure} tabs={there} />
      }
      actions={
        <div className="flex flex-wrap gap-5">
          <SwitchField label="By share of the job" checked={byShare} onChange={setByShare} />
          {!isShare && <SwitchField label="Log scale" checked={log} onChange={setLog} />}
        </div>
      }
    >
      <Plot
        label={`${there.find((each) => each.value === figure)?.label ?? figure} of ${compared.length} jobs`}
        x={x}
        curves={curves}
        height={340}
        log={log && !isShare}
        sync="compare"
        format={(value) => (isShare ? percent(value, 1) : String(Number(value.toPrecision(3))))}
      />
    </Card>
  );
}

const SMOOTHING = 0.8;

/** All jobs over the same x: their steps, or per mille of each job's steps. */
function joined(compared: Compared[], figure: string, byShare: boolean): { x: number[]; curves: Curve[] } {
  const xs = compared.map(({ now, metrics }) => {
    const total = now.total_steps ?? metrics.steps[metrics.steps.length - 1] ?? 1;
    return byShare ? metrics.steps.map((step) => Math.round((1000 * step) / total) / 10) : metrics.steps;
  });
  const x = [...new Set(xs.flat())].sort((a, b) => a - b);
  const placeOf = new Map(x.map((value, index) => [value, index]));
  const curves = compared.map(({ now, metrics, color }, index) => {
    const raw = metrics.figures[figure] ?? [];
    const isDense = figure.startsWith("train");
    const own = isDense ? smoothed(raw, SMOOTHING) : raw;
    const values: Values = new Array<number | null>(x.length).fill(null);
    own.forEach((value, at) => {
      const place = placeOf.get(xs[index]?.[at] ?? NaN);
      if (place !== undefined && value !== null) values[place] = value;
    });
    return { label: nameOf(now), color, values, points: !isDense };
  });
  return { x, curves };
}

interface Line {
  label: string;
  values: string[];
  /** The index of the best, where one is. */
  best?: number | null;
}

function Results({ compared }: { compared: Compared[] }) {
  const lowestOf = (name: string) => compared.map(({ metrics }) => lowest(metrics.figures[name] ?? [])?.value ?? null);
  const loss = lowestOf("full_valid_loss");
  const seconds = compared.map(({ recipe }) => recipe.took["seconds"] ?? null);
  const lines: Line[] = [
    { label: "Lowest validation loss", values: loss.map((value) => (value === null ? "–" : value.toFixed(4))), best: smallest(loss) },
    { label: "Last training loss", values: compared.map(({ metrics }) => lastOf(metrics.figures["train_loss"])) },
    { label: "Steps", values: compared.map(({ now }) => `${count(now.step)} of ${now.total_steps === null ? "–" : count(now.total_steps)}`) },
    { label: "Trained tokens", values: compared.map(({ now }) => (now.job.trained_tokens === null ? "–" : count(now.job.trained_tokens))) },
    { label: "Training time", values: seconds.map((value) => (value === null ? "–" : duration(value))), best: smallest(seconds) },
    { label: "Memory at the peak", values: compared.map(({ recipe }) => (recipe.took["peak_bytes"] === undefined ? "–" : bytes(recipe.took["peak_bytes"]))) },
    {
      label: "Cost",
      values: compared.map(({ now, recipe }) =>
        now.job.finished_at === null ? "–" : recipe.prices.map((price) => `$${price.usd} ${price.basis}`).join("; ") || "no price is set",
      ),
    },
  ];
  return (
    <Card title="Results and cost">
      <Sheet compared={compared} lines={lines} />
    </Card>
  );
}

const lastOf = (values: Values | undefined): string => {
  const found = (values ?? []).filter((value): value is number => value !== null);
  return found.length === 0 ? "–" : (found[found.length - 1] as number).toFixed(4);
};

function smallest(values: (number | null)[]): number | null {
  const best = lowest(values);
  const known = values.filter((value) => value !== null);
  const isAlone = known.length > 1 && known.filter((value) => value === best?.value).length === 1;
  return isAlone && best !== null ? best.index : null;
}

function Configurations({ compared }: { compared: Compared[] }) {
  const [all, setAll] = useState(false);
  const each = compared.map(({ now, recipe }) => configuration(now, recipe));
  const labels = [...new Set(each.flatMap((one) => Object.keys(one)))];
  const lines = labels.map((label) => ({ label, values: each.map((one) => one[label] ?? "–") }));
  const differs = (line: Line) => new Set(line.values).size > 1;
  const shown = all ? lines : lines.filter(differs);
  return (
    <Card title="Configuration" actions={<SwitchField label="Also what is the same" checked={all} onChange={setAll} />}>
      {shown.length === 0 ? <p className="text-sm text-soft">They are configured alike.</p> : <Sheet compared={compared} lines={shown} marks={all ? differs : undefined} />}
    </Card>
  );
}

function configuration(now: JobNow, recipe: Recipe): Record<string, string> {
  const method = String(now.job.method["type"]);
  const inner = now.job.method[method] as { hyperparameters?: Record<string, unknown> } | undefined;
  const plan = recipe.plan ?? {};
  const shown: Record<string, string> = {
    base: recipe.base,
    "base fingerprint": recipe.base_fingerprint?.slice(0, 12) ?? "–",
    method,
    "training file": fileOf(recipe.training_file),
    "validation file": fileOf(recipe.validation_file),
    seed: String(now.job.seed),
  };
  for (const [name, value] of Object.entries({ ...plan, ...inner?.hyperparameters })) {
    if (name === "schema" || name === "base_fingerprint" || value === null) continue;
    shown[name] = typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value);
  }
  return shown;
}

const fileOf = (file: Schemas["UsedFile"] | null | undefined): string => (file ? `${file.filename} (${file.sha256.slice(0, 8)})` : "none");

function Sheet({ compared, lines, marks }: { compared: Compared[]; lines: Line[]; marks?: ((line: Line) => boolean) | undefined }) {
  return (
    <div className="overflow-x-auto" tabIndex={0} role="group" aria-label="Table, scrolls sideways">
      <table className="w-full border-collapse text-sm">
        <thead>
          <tr className="border-b border-line text-left text-xs text-faint">
            <th className="py-2 pr-4 font-medium">
              <span className="sr-only">What</span>
            </th>
            {compared.map(({ now, color }) => (
              <th key={now.id} className="py-2 pr-4 font-medium">
                <span className="inline-flex items-center gap-1.5">
                  <span aria-hidden className="size-2 rounded-full" style={{ background: `var(${color})` }} />
                  {nameOf(now)}
                </span>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {lines.map((line) => (
            <tr key={line.label} className="border-b border-line last:border-0">
              <th scope="row" className="py-2 pr-4 text-left font-normal whitespace-nowrap text-soft">
                {line.label}
              </th>
              {line.values.map((value, index) => (
                <td key={compared[index]?.now.id} className={clsx("num py-2 pr-4", line.best === index && "font-semibold text-good", marks?.(line) && "font-medium")}>
                  {value}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
