/** Models and the jobs that made them. */
import { queryOptions } from "@tanstack/react-query";

import { api, read, type Schemas } from "./client";

const PAGE = 1000;

/** All jobs: lineage needs the oldest as much as the newest. */
export const allJobsQuery = queryOptions({
  queryKey: ["jobs", "all"],
  queryFn: async ({ signal }) => {
    const jobs: Schemas["Job"][] = [];
    for (let after: string | null = null; ; ) {
      const query = { limit: PAGE, ...(after === null ? {} : { after }) };
      const page: Schemas["Page_Job_"] = await read(api.GET("/v1/fine_tuning/jobs", { params: { query }, signal }));
      jobs.push(...page.data);
      if (!page.has_more || page.last_id === null) return jobs;
      after = page.last_id;
    }
  },
});

export const deleteModel = (name: string) => read(api.DELETE("/v1/models/{name}", { params: { path: { name } } }));

export const filesOf = (name: string): string => `/v1/tunesmith/models/${encodeURIComponent(name)}/files`;
