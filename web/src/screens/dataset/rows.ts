/** The rows of a file: its index read once, the rows in view fetched by their place. */
import { keepPreviousData, useQueries, useQuery } from "@tanstack/react-query";
import { useMemo } from "react";

import type { Schemas } from "@/api/client";
import { indexQuery, rowsQuery, type Index, type Length } from "@/api/data";

const PAGE = 40;

export interface Filter {
  text: string;
  /** Rows of this shape only. */
  shape: string;
  /** Rows with these numbers only. */
  numbers: ReadonlySet<number> | null;
  /** Rows of this length only. */
  length: Length | null;
}

export interface RowPlace {
  number: number;
  line: number;
  offset: number;
  bytes: number;
  /** In the unit that rows are filtered by. */
  length: number | undefined;
  shape: string;
}

/** The places in the index of the rows that pass the filter. */
export function useRows(fileId: string, filter: Filter) {
  const index = useQuery({ ...indexQuery(fileId, filter.text, filter.length), placeholderData: keepPreviousData });
  const places = useMemo(() => (index.data ? passing(index.data, filter) : []), [index.data, filter]);
  return { index, places };
}

function passing(index: Index, filter: Filter): number[] {
  const shape = filter.shape === "" ? -1 : index.shapes.indexOf(filter.shape);
  const found: number[] = [];
  for (let place = 0; place < index.number.length; place += 1) {
    if (filter.shape !== "" && index.shape[place] !== shape) continue;
    if (filter.numbers && !filter.numbers.has(index.number[place] ?? 0)) continue;
    found.push(place);
  }
  return found;
}

export function placeOf(index: Index, place: number): RowPlace {
  return {
    number: index.number[place] ?? 0,
    line: index.line[place] ?? 0,
    offset: index.offset[place] ?? 0,
    bytes: index.bytes[place] ?? 0,
    length: index.length?.[place],
    shape: index.shapes[index.shape[place] ?? 0] ?? "",
  };
}

/** The contents of the rows in view, by their offset, as far as they have come. */
export function useContents(fileId: string, index: Index | undefined, places: number[], first: number, last: number) {
  const pages = [];
  if (index) {
    for (let page = Math.floor(first / PAGE); page <= Math.floor(last / PAGE); page += 1) {
      const offsets = places.slice(page * PAGE, (page + 1) * PAGE).map((place) => index.offset[place] ?? 0);
      if (offsets.length > 0) pages.push(offsets);
    }
  }
  const queries = useQueries({ queries: pages.map((offsets) => rowsQuery(fileId, offsets)) });
  const contents = new Map<number, Schemas["RowAt"]>();
  for (const query of queries) for (const row of query.data ?? []) contents.set(row.offset, row);
  return contents;
}
