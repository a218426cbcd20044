/** The keys of the project that one is signed in to. */
import { queryOptions } from "@tanstack/react-query";

import { api, read, type Schemas } from "./client";
import { everyPage } from "./pages";

export type Key = Schemas["ProjectKey"];
export type NewKey = Schemas["NewProjectKey"];

export const keysQuery = queryOptions({
  queryKey: ["keys"],
  queryFn: ({ signal }) => everyPage((after) => read(api.GET("/v1/tunesmith/keys", { params: { query: { limit: 100, ...after } }, signal }))),
});

export const createKey = (body: Schemas["CreateProjectKey"]): Promise<NewKey> => read(api.POST("/v1/tunesmith/keys", { body }));

export const revokeKey = (keyId: string) => read(api.DELETE("/v1/tunesmith/keys/{key_id}", { params: { path: { key_id: keyId } } }));
