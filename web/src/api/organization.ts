/** Projects, and what they may use and have used. */
import { queryOptions } from "@tanstack/react-query";

import { api, read, type Schemas } from "./client";
import { everyPage } from "./pages";

export type RateLimit = Schemas["ProjectRateLimit"];
export type SpendLimit = Schemas["SpendLimit"];
export type Bucket = Schemas["Bucket"];

export const projectsQuery = queryOptions({
  queryKey: ["projects"],
  queryFn: ({ signal }) => everyPage((after) => read(api.GET("/v1/organization/projects", { params: { query: { limit: 100, ...after } }, signal }))),
});

export const limitsQuery = (projectId: string) =>
  queryOptions({
    queryKey: ["limits", projectId],
    queryFn: ({ signal }) =>
      everyPage((after) =>
        read(
          api.GET("/v1/organization/projects/{project_id}/rate_limits", {
            params: { path: { project_id: projectId }, query: { limit: 1000, ...after } },
            signal,
          }),
        ),
      ),
  });

export const spendingQuery = (projectId: string) =>
  queryOptions({
    queryKey: ["spending", projectId],
    queryFn: ({ signal }) =>
      everyPage((after) =>
        read(
          api.GET("/v1/tunesmith/projects/{project_id}/spend_limits", {
            params: { path: { project_id: projectId }, query: { limit: 100, ...after } },
            signal,
          }),
        ),
      ),
  });

/** What holds for the key of this session, whatever its role. */
export const ownLimitsQuery = queryOptions({
  queryKey: ["limits"],
  queryFn: ({ signal }) => read(api.GET("/v1/tunesmith/limits", { signal })),
});

export const setRates = (projectId: string, limit: RateLimit, changes: Schemas["UpdateRateLimit"]) =>
  read(
    api.POST("/v1/organization/projects/{project_id}/rate_limits/{rate_limit_id}", {
      params: { path: { project_id: projectId, rate_limit_id: limit.id } },
      body: changes,
    }),
  );

export const setSpending = (projectId: string, limit: SpendLimit, usdPerMonth: number | null) =>
  read(
    api.POST("/v1/tunesmith/projects/{project_id}/spend_limits/{owner_id}", {
      params: { path: { project_id: projectId, owner_id: limit.id } },
      body: { usd_per_month: usdPerMonth },
    }),
  );

export const NUM_DAYS = 30;
const DAY_S = 86_400;

/** Whole days of UTC, the last of them today: as many buckets as days. */
function lastDays() {
  const today = Math.floor(Date.now() / 1000 / DAY_S) * DAY_S;
  return { start_time: today - (NUM_DAYS - 1) * DAY_S, end_time: today + DAY_S, bucket_width: "1d" as const, limit: NUM_DAYS };
}

/** The arrays of these questions are not in the document that the types are made of. */
const withArrays =
  (groupBy: string, projectId: string | undefined) =>
  (query: object): string => {
    const asked = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]));
    asked.append("group_by[]", groupBy);
    if (projectId !== undefined) asked.append("project_ids[]", projectId);
    return asked.toString();
  };

/** Of all projects where none is named. */
export const usageQuery = (projectId: string | undefined) =>
  queryOptions({
    queryKey: ["usage", projectId],
    queryFn: ({ signal }) =>
      read(
        api.GET("/v1/organization/usage/completions", {
          params: { query: lastDays() },
          querySerializer: withArrays("model", projectId),
          signal,
        }),
      ),
  });

export const costsQuery = (projectId: string | undefined) =>
  queryOptions({
    queryKey: ["costs", projectId],
    queryFn: ({ signal }) =>
      read(
        api.GET("/v1/organization/costs", {
          params: { query: lastDays() },
          querySerializer: withArrays("line_item", projectId),
          signal,
        }),
      ),
  });
