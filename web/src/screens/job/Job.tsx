/** One job: where it stands, how it learns, what it answers, and what it is made of. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { CirclePause, CirclePlay, Copy, MessagesSquare, OctagonX } from "lucide-react";
import { useState } from "react";

import { api, read } from "@/api/client";
import { ENDED, jobQuery, useLiveJobs, type JobNow } from "@/api/jobs";
import type { StreamState } from "@/api/sse";
import { Badge, StatusBadge } from "@/parts/Badge";
import { Button, buttonClass } from "@/parts/Button";
import { CopyButton } from "@/parts/Code";
import { Confirm } from "@/parts/Dialog";
import { Page } from "@/parts/Page";
import { TabBar } from "@/parts/Tabs";
import { useToast } from "@/parts/Toast";
import { ErrorBox, Loading } from "@/parts/states";
import { count, duration, when } from "@/lib/format";

import { Curves } from "./Curves";
import { Events } from "./Events";
import { Examples } from "./Examples";
import { Files } from "./Files";
import { Recipe } from "./Recipe";
import { Samples } from "./Samples";
import { useNow } from "./clock";

const TABS = [
  { value: "curves", label: "Curves" },
  { value: "samples", label: "Samples" },
  { value: "examples", label: "Examples" },
  { value: "events", label: "Events" },
  { value: "recipe", label: "Configuration" },
  { value: "files", label: "Files" },
];

export function Job() {
  const { jobId } = useParams({ from: "/shell/jobs/$jobId" });
  const { tab = "curves" } = useSearch({ from: "/shell/jobs/$jobId" });
  const navigate = useNavigate();
  const job = useQuery(jobQuery(jobId));
  const stream = useLiveJobs(jobId);
  const above = <Link to="/jobs">Jobs</Link>;
  if (job.isPending) {
    return (
      <Page title="Job" above={above}>
        <Loading lines={6} />
      </Page>
    );
  }
  if (job.isError) {
    return (
      <Page title="Job" above={above}>
        <ErrorBox error={job.error} retry={() => void job.refetch()} />
      </Page>
    );
  }
  const now = job.data;
  const chosen = TABS.some((each) => each.value === tab) ? tab : "curves";
  return (
    <Page title={titleOf(now)} above={above} subtitle={<Subtitle now={now} />} actions={<Actions now={now} />} wide>
      <Progress now={now} stream={stream} />
      {now.job.error && (
        <div role="alert" className="mb-5 rounded-xl bg-bad-wash px-4 py-3 text-sm">
          <p className="font-medium [overflow-wrap:anywhere]">{now.job.error.message}</p>
          <p className="mt-1 font-mono text-xs text-soft">
            {now.job.error.code}
            {now.job.error.param ? ` · ${now.job.error.param}` : ""}
          </p>
        </div>
      )}
      <TabBar
        label="About this job"
        value={chosen}
        onChange={(value) => void navigate({ to: "/jobs/$jobId", params: { jobId }, search: { tab: value }, replace: true })}
        tabs={TABS}
      >
        {chosen === "curves" && <Curves now={now} />}
        {chosen === "samples" && <Samples now={now} />}
        {chosen === "examples" && <Examples now={now} />}
        {chosen === "events" && <Events now={now} />}
        {chosen === "recipe" && <Recipe now={now} />}
        {chosen === "files" && <Files now={now} />}
      </TabBar>
    </Page>
  );
}

export const titleOf = (now: JobNow): string => now.job.user_provided_suffix ?? now.job.id;

function Subtitle({ now }: { now: JobNow }) {
  const { job } = now;
  return (
    <span className="flex flex-wrap items-center gap-x-3 gap-y-1">
      <StatusBadge status={job.status} />
      {now.control !== null && <Badge tone="warn">{now.control === "cancel" ? "cancelling" : "pausing"}</Badge>}
      <span className="[overflow-wrap:anywhere]">{job.model}</span>
      <span>{String(job.method["type"])}</span>
      <span className="inline-flex items-center font-mono text-xs">
        {job.id}
        <CopyButton text={job.id} label="Copy the job's id" />
      </span>
    </span>
  );
}

function Actions({ now }: { now: JobNow }) {
  const client = useQueryClient();
  const notify = useToast();
  const [asks, setAsks] = useState(false);
  const { job } = now;
  const act = useMutation({
    mutationFn: (what: "cancel" | "pause" | "resume") =>
      read(api.POST(`/v1/fine_tuning/jobs/{job_id}/${what}`, { params: { path: { job_id: job.id } } })),
    onSuccess: () => client.invalidateQueries({ queryKey: ["job", job.id] }),
    onError: (error) => notify("That did not work", { detail: error.message, tone: "bad" }),
    onSettled: () => setAsks(false),
  });
  const isOpen = !ENDED.includes(job.status);
  const mayPause = (job.status === "running" || job.status === "queued") && now.control === null;
  return (
    <>
      {mayPause && (
        <Button onClick={() => act.mutate("pause")} busy={act.isPending && act.variables === "pause"}>
          <CirclePause size={15} /> Pause
        </Button>
      )}
      {job.status === "paused" && (
        <Button kind="primary" onClick={() => act.mutate("resume")} busy={act.isPending && act.variables === "resume"}>
          <CirclePlay size={15} /> Resume
        </Button>
      )}
      {isOpen && now.control !== "cancel" && (
        <Button kind="danger" onClick={() => setAsks(true)}>
          <OctagonX size={15} /> Cancel
        </Button>
      )}
      {!isOpen && (
        <Link to="/jobs/new" search={{ from: job.id }} className={buttonClass()}>
          <Copy size={15} /> Train again
        </Link>
      )}
      {job.fine_tuned_model !== null && (
        <Link to="/playground" search={{ models: `${job.model},${job.fine_tuned_model}` }} className={buttonClass("primary")}>
          <MessagesSquare size={15} /> Try it
        </Link>
      )}
      <Confirm
        open={asks}
        onOpenChange={setAsks}
        title="Cancel this job?"
        action="Cancel the job"
        busy={act.isPending}
        onConfirm={() => act.mutate("cancel")}
      >
        It ends at its next step and makes no model. A job that is paused instead can go on later.
      </Confirm>
    </>
  );
}

function Progress({ now, stream }: { now: JobNow; stream: StreamState }) {
  const { job } = now;
  const seconds = useNow(!ENDED.includes(job.status));
  const total = now.total_steps ?? 0;
  const part = total > 0 ? Math.min(1, now.step / total) : 0;
  const end = job.finished_at ?? seconds;
  const left = job.estimated_finish === null ? null : job.estimated_finish - seconds;
  const facts: string[] = [];
  if (total > 0) facts.push(`Step ${count(now.step)} of ${count(total)}`);
  if (job.status === "running" && left !== null) facts.push(left > 1 ? `about ${duration(left)} left` : "about to end");
  if (now.num_ahead !== null) facts.push(now.num_ahead === 0 ? "next in the queue" : `${count(now.num_ahead)} ahead in the queue`);
  if (job.trained_tokens !== null) facts.push(`${count(job.trained_tokens)} tokens trained`);
  facts.push(job.finished_at === null ? `created ${when(job.created_at)}` : `took ${duration(end - job.created_at)}, ended ${when(job.finished_at)}`);
  return (
    <div className="mb-6">
      <div
        role="progressbar"
        aria-label="Progress of the training"
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(part * 100)}
        className="h-1.5 overflow-hidden rounded-full bg-sunken"
      >
        <div
          className={`h-full rounded-full transition-[width] duration-500 ${barColor(job.status)}`}
          style={{ width: `${part * 100}%` }}
        />
      </div>
      <div className="mt-2 flex flex-wrap items-center justify-between gap-x-6 gap-y-1 text-sm text-soft">
        <span className="num flex flex-wrap gap-x-4 gap-y-0.5">
          {facts.map((fact) => (
            <span key={fact}>{fact}</span>
          ))}
        </span>
        {!ENDED.includes(job.status) && <Live stream={stream} />}
      </div>
    </div>
  );
}

const barColor = (status: string): string =>
  status === "succeeded" ? "bg-good" : status === "failed" ? "bg-bad" : status === "running" ? "bg-accent" : "bg-line-strong";

function Live({ stream }: { stream: StreamState }) {
  const said = stream === "open" ? "Live" : stream === "closed" ? "Not live" : "Connecting again";
  return (
    <span className="inline-flex items-center gap-1.5 text-xs" role="status">
      <span aria-hidden className={`size-1.5 rounded-full ${stream === "open" ? "bg-good motion-safe:animate-pulse" : "bg-warn"}`} />
      {said}
    </span>
  );
}
