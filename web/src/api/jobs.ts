/** Jobs: what the server says of them, and the stream that keeps it up to date. */
import { infiniteQueryOptions, queryOptions, useQueryClient, type QueryClient } from "@tanstack/react-query";
import { useEffect, useRef, useSyncExternalStore } from "react";

import { api, read, type Schemas } from "./client";
import { useEvents, type Message, type StreamState } from "./sse";

export type JobNow = Schemas["JobNow"];
export type JobMetrics = Schemas["JobMetrics"];
export type LiveEvent = Schemas["Event"] & { fine_tuning_job_id: string };
export type Estimate = Schemas["JobEstimate"];
export type JobRow = Schemas["RowLoss"];

export const ENDED = ["succeeded", "failed", "cancelled"];
const PAGE = 100;
const MAX_EVENTS = 10_000;

const path = (jobId: string) => ({ path: { job_id: jobId } });

export const jobQuery = (jobId: string) =>
  queryOptions({
    queryKey: ["job", jobId],
    queryFn: ({ signal }) => read(api.GET("/v1/tunesmith/jobs/{job_id}", { params: path(jobId), signal })),
  });

export const metricsQuery = (jobId: string) =>
  queryOptions({
    queryKey: ["job", jobId, "metrics"],
    queryFn: ({ signal }) => read(api.GET("/v1/tunesmith/jobs/{job_id}/metrics", { params: path(jobId), signal })),
  });

export const eventsQuery = (jobId: string) =>
  queryOptions({
    queryKey: ["job", jobId, "events"],
    queryFn: ({ signal }) =>
      read(
        api.GET("/v1/fine_tuning/jobs/{job_id}/events", { params: { ...path(jobId), query: { limit: MAX_EVENTS } }, signal }),
      ),
  });

export const checkpointsQuery = (jobId: string) =>
  queryOptions({
    queryKey: ["job", jobId, "checkpoints"],
    queryFn: ({ signal }) =>
      read(api.GET("/v1/fine_tuning/jobs/{job_id}/checkpoints", { params: { ...path(jobId), query: { limit: 100 } }, signal })),
  });

export const samplesQuery = (jobId: string) =>
  queryOptions({
    queryKey: ["job", jobId, "samples"],
    queryFn: ({ signal }) => read(api.GET("/v1/tunesmith/jobs/{job_id}/samples", { params: path(jobId), signal })),
  });

export const recipeQuery = (jobId: string) =>
  queryOptions({
    queryKey: ["job", jobId, "recipe"],
    queryFn: ({ signal }) => read(api.GET("/v1/tunesmith/jobs/{job_id}/recipe", { params: path(jobId), signal })),
  });

export const rowsQuery = (jobId: string, order: "loss" | "change") =>
  infiniteQueryOptions({
    queryKey: ["job", jobId, "rows", order],
    queryFn: ({ pageParam, signal }) =>
      read(
        api.GET("/v1/tunesmith/jobs/{job_id}/rows", {
          params: { ...path(jobId), query: { order, limit: PAGE, ...(pageParam === null ? {} : { after: pageParam }) } },
          signal,
        }),
      ),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => (last.has_more ? last.last_id : null),
  });

export const rowTokensQuery = (jobId: string, row: number, model: string | null) =>
  queryOptions({
    queryKey: ["job", jobId, "tokens", row, model],
    staleTime: Infinity,
    queryFn: ({ signal }) =>
      read(
        api.GET("/v1/tunesmith/jobs/{job_id}/rows/{row}/tokens", {
          params: { path: { job_id: jobId, row }, query: model === null ? {} : { model } },
          signal,
        }),
      ),
  });

const isVisible = () => document.visibilityState === "visible";
const onVisibility = (listener: () => void) => {
  document.addEventListener("visibilitychange", listener);
  return () => document.removeEventListener("visibilitychange", listener);
};

// News come one by one; the page is drawn anew a few times a second at most.
const FLUSH_MS = 200;

/**
 * Keeps all queries about jobs, or about one, up to date while mounted. Only a visible page
 * listens: browsers allow few connections to one server.
 */
export function useLiveJobs(jobId: string | null = null): StreamState {
  const client = useQueryClient();
  const visible = useSyncExternalStore(onVisibility, isVisible);
  const waiting = useRef<Message[]>([]);
  const timer = useRef<ReturnType<typeof setTimeout> | null>(null);
  useEffect(
    () => () => {
      if (timer.current !== null) clearTimeout(timer.current);
      timer.current = null;
    },
    [],
  );
  const url = "/v1/tunesmith/events" + (jobId === null ? "" : `?job=${encodeURIComponent(jobId)}`);
  return useEvents(visible ? url : null, (message) => {
    waiting.current.push(message);
    timer.current ??= setTimeout(() => {
      timer.current = null;
      take(client, waiting.current.splice(0), jobId);
    }, FLUSH_MS);
  });
}

function take(client: QueryClient, messages: Message[], only: string | null): void {
  const events: LiveEvent[] = [];
  for (const message of messages) {
    if (message.event === "fine_tuning.job.event") events.push(JSON.parse(message.data) as LiveEvent);
    else if (message.event === "tunesmith.job") takeJob(client, JSON.parse(message.data) as JobNow);
    // What was asked before the stream began may lack what happened in between.
    else if (message.event === "open") void client.invalidateQueries({ queryKey: only === null ? ["jobs"] : ["job", only] });
  }
  for (const jobId of new Set(events.map((event) => event.fine_tuning_job_id))) {
    const own = events.filter((event) => event.fine_tuning_job_id === jobId);
    takeMetrics(client, jobId, own);
    client.setQueryData(eventsQuery(jobId).queryKey, (old) => {
      if (!old) return old;
      const known = new Set(old.data.slice(0, own.length + 50).map((event) => event.id));
      const fresh = own.filter((event) => !known.has(event.id)).reverse();
      return { ...old, data: [...fresh, ...old.data].slice(0, MAX_EVENTS) };
    });
    if (own.some((event) => event.type === "message")) refresh(client, jobId);
  }
}

/** Checkpoints, answers and files come with messages, never between them. */
function refresh(client: QueryClient, jobId: string): void {
  for (const part of ["checkpoints", "samples", "rows", "recipe"]) {
    void client.invalidateQueries({ queryKey: ["job", jobId, part] });
  }
}

function takeJob(client: QueryClient, now: JobNow): void {
  const before = client.getQueryData(jobQuery(now.id).queryKey);
  client.setQueryData(jobQuery(now.id).queryKey, now);
  if (before?.job.status === now.job.status) return;
  for (const key of ["jobs", "models", "status"]) void client.invalidateQueries({ queryKey: [key] });
}

function takeMetrics(client: QueryClient, jobId: string, events: LiveEvent[]): void {
  const metrics = events.filter((event) => event.type === "metrics");
  if (metrics.length === 0) return;
  client.setQueryData(metricsQuery(jobId).queryKey, (old) => (old ? appended(old, metrics) : old));
}

/** The same with further steps at its end; a step that is there already is not told twice. */
export function appended(old: JobMetrics, events: LiveEvent[]): JobMetrics {
  const last = old.steps[old.steps.length - 1] ?? 0;
  const fresh = events.filter((event) => Number(event.data["step"]) > last);
  if (fresh.length === 0) return old;
  const names = new Set(Object.keys(old.figures));
  for (const event of fresh) for (const name of Object.keys(event.data)) names.add(name);
  names.delete("step");
  names.delete("total_steps");
  const figures: JobMetrics["figures"] = {};
  for (const name of names) {
    const before = old.figures[name] ?? old.steps.map(() => null);
    figures[name] = before.concat(fresh.map((event) => (event.data[name] as number | undefined) ?? null));
  }
  return {
    ...old,
    steps: old.steps.concat(fresh.map((event) => Number(event.data["step"]))),
    created_at: old.created_at.concat(fresh.map((event) => event.created_at)),
    figures,
  };
}
