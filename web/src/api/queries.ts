/** What several screens ask the server for, under one cache key each. */
import { queryOptions } from "@tanstack/react-query";

import { api, read } from "./client";

export const filesQuery = queryOptions({
  queryKey: ["files"],
  queryFn: ({ signal }) => read(api.GET("/v1/files", { signal })),
});

export const jobsQuery = queryOptions({
  queryKey: ["jobs"],
  queryFn: ({ signal }) => read(api.GET("/v1/fine_tuning/jobs", { params: { query: { limit: 100 } }, signal })),
});

export const modelsQuery = queryOptions({
  queryKey: ["models"],
  queryFn: ({ signal }) => read(api.GET("/v1/models", { signal })),
});

export const statusQuery = queryOptions({
  queryKey: ["status"],
  queryFn: ({ signal }) => read(api.GET("/v1/tunesmith/status", { signal })),
  refetchInterval: 10_000,
});

export const fileQuery = (fileId: string) =>
  queryOptions({
    queryKey: ["files", fileId],
    queryFn: ({ signal }) => read(api.GET("/v1/files/{file_id}", { params: { path: { file_id: fileId } }, signal })),
  });

export const sessionQuery = queryOptions({
  queryKey: ["session"],
  queryFn: ({ signal }) => read(api.GET("/v1/tunesmith/session", { signal })),
});
