/** The first minutes: one button that tunes a model on shipped data, and the way through it. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { Check, Play, Upload } from "lucide-react";
import type { ReactNode } from "react";

import { api, read, type Schemas } from "@/api/client";
import { ENDED } from "@/api/jobs";
import { filesQuery } from "@/api/queries";
import { Button, buttonClass } from "@/parts/Button";
import { ErrorBox } from "@/parts/states";

type Job = Schemas["Job"];

// While the guide still helps: afterwards one knows the way.
const MAX_JOBS_WITH_GUIDE = 3;

export function Welcome() {
  const queries = useQueryClient();
  const navigate = useNavigate();
  const run = useMutation({
    mutationFn: async () => {
      const demo = await read(api.POST("/v1/tunesmith/demo"));
      return read(api.POST("/v1/fine_tuning/jobs", { body: demo.job as Schemas["CreateJob"] }));
    },
    onSuccess: async (job) => {
      await Promise.all([queries.invalidateQueries({ queryKey: ["jobs"] }), queries.invalidateQueries({ queryKey: ["files"] })]);
      await navigate({ to: "/jobs/$jobId", params: { jobId: job.id } });
    },
  });
  return (
    <section className="overflow-hidden rounded-2xl border border-line bg-surface">
      <div className="grid gap-8 px-6 py-8 sm:px-8 lg:grid-cols-[minmax(0,1.2fr)_minmax(0,1fr)]">
        <div>
          <h2 className="text-2xl font-semibold tracking-tight text-balance">Tune your first model in about a minute</h2>
          <p className="mt-2 max-w-prose text-sm text-soft">
            The demo teaches the embedded model to name the intent of a request, from 1,204 real examples that come with
            Tunesmith. It runs on this machine; nothing leaves it.
          </p>
          <div className="mt-5 flex flex-wrap gap-2">
            <Button kind="primary" busy={run.isPending} onClick={() => run.mutate()}>
              {!run.isPending && <Play size={15} />} Run the demo
            </Button>
            <Link to="/data" search={{ upload: true }} className={buttonClass("plain")}>
              <Upload size={15} /> Use my own data
            </Link>
          </div>
          {run.isError && (
            <div className="mt-4">
              <ErrorBox error={run.error} />
            </div>
          )}
        </div>
        <ol className="flex flex-col justify-center gap-3 text-sm">
          {["Look at the data, token by token", "Watch it learn, live", "Ask the tuned model and its base side by side"].map((step, place) => (
            <li key={step} className="flex items-center gap-3">
              <span className="num flex size-6 shrink-0 items-center justify-center rounded-full bg-accent-wash text-xs font-semibold text-accent">{place + 1}</span>
              {step}
            </li>
          ))}
        </ol>
      </div>
    </section>
  );
}

/** After the demo was started: what to look at next. */
export function Guide({ jobs }: { jobs: Job[] }) {
  const files = useQuery(filesQuery);
  const job = jobs.at(-1);
  const isDemo = files.data?.data.some((file) => file.id === job?.training_file && file.filename === "snips_train.jsonl");
  if (!job || !isDemo || jobs.length > MAX_JOBS_WITH_GUIDE) return null;
  const ended = ENDED.includes(job.status);
  const model = job.fine_tuned_model;
  return (
    <section aria-label="The demo, step by step" className="grid gap-px overflow-hidden rounded-xl border border-line bg-line md:grid-cols-3">
      <Step number={1} done={false} title="Look at the data" text="1,204 requests, each with the name of its intent.">
        <Link to="/data/$fileId" params={{ fileId: job.training_file }} search={{ tab: "tokens" }} className={buttonClass("plain", "sm")}>
          Open the file
        </Link>
      </Step>
      <Step number={2} done={ended} title={ended ? `It has ${job.status}` : "Watch it learn"} text="Loss by step, and five prompts answered at each checkpoint.">
        <Link to="/jobs/$jobId" params={{ jobId: job.id }} className={buttonClass(ended ? "plain" : "primary", "sm")}>
          Open the job
        </Link>
      </Step>
      <Step number={3} done={false} title="Ask it" text="The tuned model beside its base, with the same prompt.">
        {model === null ? (
          <span className="text-xs text-faint">once the job has succeeded</span>
        ) : (
          <Link to="/playground" search={{ models: [job.model, model].join(",") }} className={buttonClass("primary", "sm")}>
            Open the playground
          </Link>
        )}
      </Step>
    </section>
  );
}

function Step({ number, done, title, text, children }: { number: number; done: boolean; title: string; text: string; children: ReactNode }) {
  return (
    <div className="flex gap-3 bg-surface px-5 py-4">
      <span className={`num mt-0.5 flex size-6 shrink-0 items-center justify-center rounded-full text-xs font-semibold ${done ? "bg-good-wash text-good" : "bg-accent-wash text-accent"}`}>
        {done ? <Check size={13} aria-label="done" /> : number}
      </span>
      <div className="min-w-0">
        <h2 className="text-sm font-semibold">{title}</h2>
        <p className="mt-0.5 mb-3 text-sm text-soft">{text}</p>
        {children}
      </div>
    </div>
  );
}
