/** What the job will take, as the server reckons while the form is filled in. */
import { keepPreviousData, useQuery, type UseQueryResult } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { CircleAlert, CircleCheck, TriangleAlert } from "lucide-react";
import type { ReactNode } from "react";

import { api, ApiError, read } from "@/api/client";
import { reportQuery } from "@/api/data";
import type { Estimate } from "@/api/jobs";
import { CodeTabs } from "@/parts/Code";
import { Spinner } from "@/parts/Button";
import { Pair } from "@/parts/Stat";
import { bytes, count, duration } from "@/lib/format";
import { createCodes } from "@/lib/snippets";

import type { Body } from "./form";

type Asked = UseQueryResult<Estimate, Error> & { measuring: boolean };

/** First what can be counted; where no job has told the speed, then a short rehearsal. */
export function useEstimate(body: Body): Asked {
  const ask = (measure: boolean) => ({
    queryKey: ["estimate", measure, body],
    queryFn: ({ signal }: { signal: AbortSignal }) => read(api.POST("/v1/tunesmith/jobs/estimate", { body: { ...body, measure }, signal })),
    staleTime: 30_000,
    placeholderData: keepPreviousData,
  });
  const isComplete = body.model !== "" && body.training_file !== "";
  const counted = useQuery({ ...ask(false), enabled: isComplete });
  const found = counted.data;
  const wants = isComplete && !counted.isPlaceholderData && found?.seconds === null && found.problem === null && body.method.type === "supervised";
  const measured = useQuery({ ...ask(true), enabled: wants });
  const data = wants && measured.data && !measured.isPlaceholderData ? measured.data : found;
  return { ...counted, data, measuring: wants && measured.isFetching } as Asked;
}

interface OutlookProps {
  estimate: Asked;
  body: Body;
  isSettled: boolean;
  action: ReactNode;
}

export function Outlook({ estimate, body, isSettled, action }: OutlookProps) {
  const found = estimate.data;
  const isBusy = estimate.isFetching || !isSettled;
  return (
    <aside className="flex min-w-0 flex-col gap-4 xl:sticky xl:top-6">
      <section aria-label="What it will take" className="rounded-xl border border-line bg-surface">
        <div className="flex min-h-12 items-center justify-between px-5 pt-3">
          <h2 className="text-sm font-semibold">What it will take</h2>
          {isBusy && (
            <span role="status" className="inline-flex items-center gap-2 text-xs text-faint">
              <Spinner /> counting
            </span>
          )}
        </div>
        <div className="px-5 pt-1 pb-5">
          {estimate.error instanceof ApiError && estimate.error.status !== 0 ? (
            <Note tone="bad">{estimate.error.message}</Note>
          ) : found ? (
            <Figures found={found} measuring={estimate.measuring} />
          ) : (
            <p className="py-6 text-center text-sm text-faint">Choose a base and a file.</p>
          )}
          <Findings file={body.training_file} />
          <div className="mt-4">{action}</div>
        </div>
      </section>
      <section aria-label="The same call" className="rounded-xl border border-line bg-surface px-5 py-4">
        <h2 className="mb-2 text-sm font-semibold">The same call</h2>
        <CodeTabs codes={createCodes(body)} />
      </section>
    </aside>
  );
}

function Figures({ found, measuring }: { found: Estimate; measuring: boolean }) {
  const epochs = Number(found.hyperparameters["n_epochs"]);
  if (found.code !== null) {
    return (
      <>
        <p className="pt-1 text-lg font-semibold">A job on this file would fail</p>
        <Note tone="bad">{found.problem}</Note>
      </>
    );
  }
  return (
    <>
      <div className="mb-3 rounded-lg bg-sunken px-4 py-3">
        <p className="num text-2xl font-semibold tracking-tight">
          {found.seconds === null ? measuring ? <span className="text-lg font-medium text-soft">measuring the speed …</span> : "time unknown" : `about ${duration(found.seconds)}`}
        </p>
        <p className="num mt-0.5 text-xs text-soft">
          {count(found.num_tokens)} tokens × {count(epochs)} {epochs === 1 ? "epoch" : "epochs"} = {count(found.trained_tokens)} trained tokens
        </p>
        {found.prices.map((price) => (
          <p key={price.basis} className="num mt-1 text-xs text-soft">
            <span className="text-sm font-semibold text-ink">${price.usd}</span> {price.basis}
          </p>
        ))}
      </div>
      <dl>
        <Pair label="Examples">{count(found.num_examples)}</Pair>
        <Pair label="Steps">{count(found.num_steps)}</Pair>
        <Pair label="Tokens that are learned">{count(found.num_supervised_tokens)} of one epoch</Pair>
        <Pair label="Longest example">
          {count(found.longest)} of {count(found.max_tokens)} tokens
        </Pair>
        <Pair label="Learning rate">{Number(found.learning_rate.toPrecision(3))}</Pair>
        {found.peak_bytes !== null && <Pair label="Memory at the peak">about {bytes(found.peak_bytes)}</Pair>}
        {found.tokens_per_s !== null && (
          <Pair label="Speed">
            {count(Math.round(found.tokens_per_s))} tokens/s
            <span className="block text-xs text-faint">{found.rate_source}</span>
          </Pair>
        )}
        <Pair label="Queue">{found.num_ahead === 0 ? "starts at once" : `${count(found.num_ahead)} ahead`}</Pair>
      </dl>
      {found.problem !== null && <Note tone="bad">{found.problem}</Note>}
    </>
  );
}

/** What the checks say about the file, in a line. */
function Findings({ file }: { file: string }) {
  const report = useQuery({ ...reportQuery(file), enabled: file !== "" });
  if (!report.data) return null;
  const num = (severity: string) => report.data.findings.filter((each) => each.severity === severity).length;
  const errors = num("error");
  const warnings = num("warning");
  const link = (
    <Link to="/data/$fileId" params={{ fileId: file }} search={{ tab: "report" }} className="font-medium underline">
      Report
    </Link>
  );
  if (errors > 0) return <Note tone="bad">The checks found {errors === 1 ? "an error" : `${errors} errors`} in the file. {link}</Note>;
  if (warnings > 0) return <Note tone="warn">{warnings === 1 ? "One warning" : `${warnings} warnings`} about the file. {link}</Note>;
  return <Note tone="good">The checks found nothing wrong. {link}</Note>;
}

const TONES = {
  good: { wash: "bg-good-wash", icon: <CircleCheck size={15} className="text-good" /> },
  warn: { wash: "bg-warn-wash", icon: <TriangleAlert size={15} className="text-warn" /> },
  bad: { wash: "bg-bad-wash", icon: <CircleAlert size={15} className="text-bad" /> },
};

function Note({ tone, children }: { tone: keyof typeof TONES; children: ReactNode }) {
  return (
    <p className={`mt-3 flex items-start gap-2 rounded-lg px-3 py-2 text-sm ${TONES[tone].wash}`}>
      <span className="mt-0.5 shrink-0">{TONES[tone].icon}</span>
      <span className="min-w-0 [overflow-wrap:anywhere]">{children}</span>
    </p>
  );
}
