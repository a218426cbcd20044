/** Questions about uploaded files. A file never changes, so no answer grows old. */
import { queryOptions } from "@tanstack/react-query";

import { api, read, type Schemas } from "./client";

export type Report = Schemas["Report"];
export type Finding = Schemas["Finding"];
export type Index = Schemas["Index"];

const KEPT = { staleTime: Infinity, gcTime: 10 * 60_000 } as const;

export const reportQuery = (file: string, base: string | null = null) =>
  queryOptions({
    ...KEPT,
    queryKey: ["data", file, "report", base],
    queryFn: ({ signal }) =>
      read(api.POST("/v1/tunesmith/data/report", { body: { file, base, after: 0, limit: 0 }, signal })),
  });

/** Rows of a length; `base`: whose tokens they are counted in. */
export type Length = Pick<Schemas["IndexRequest"], "unit" | "min_length" | "max_length" | "base">;

export const indexQuery = (file: string, text: string, length: Length | null) =>
  queryOptions({
    ...KEPT,
    queryKey: ["data", file, "index", text, length],
    queryFn: ({ signal }) => read(api.POST("/v1/tunesmith/data/index", { body: { file, text, min_length: 0, ...length }, signal })),
  });

export const rowsQuery = (file: string, offsets: number[]) =>
  queryOptions({
    ...KEPT,
    queryKey: ["data", file, "rows", offsets],
    queryFn: async ({ signal }) => {
      const rows: Schemas["RowAt"][] = [];
      // Of long rows an answer holds fewer than were asked for.
      while (rows.length < offsets.length) {
        const body = { file, offsets: offsets.slice(rows.length) };
        const more = await read(api.POST("/v1/tunesmith/data/rows", { body, signal }));
        if (more.rows.length === 0) break;
        rows.push(...more.rows);
      }
      return rows;
    },
  });

export const tokensQuery = (file: string, offset: number, base: string) =>
  queryOptions({
    ...KEPT,
    queryKey: ["data", file, "tokens", offset, base],
    queryFn: ({ signal }) => read(api.POST("/v1/tunesmith/data/tokens", { body: { file, offset, base }, signal })),
  });

export const statsQuery = (file: string, base: string) =>
  queryOptions({
    ...KEPT,
    queryKey: ["data", file, "stats", base],
    queryFn: ({ signal }) => read(api.POST("/v1/tunesmith/data/stats", { body: { file, base }, signal })),
  });

export const fixPreviewQuery = (file: string, codes: string[] | null) =>
  queryOptions({
    ...KEPT,
    queryKey: ["data", file, "fix", codes],
    queryFn: ({ signal }) =>
      read(api.POST("/v1/tunesmith/data/fix", { body: { file, codes, dry_run: true }, signal })),
  });

export const splitPreviewQuery = (file: string, ratio: number, seed: number) =>
  queryOptions({
    ...KEPT,
    queryKey: ["data", file, "split", ratio, seed],
    queryFn: ({ signal }) =>
      read(api.POST("/v1/tunesmith/data/split", { body: { file, ratio, seed, dry_run: true }, signal })),
  });
