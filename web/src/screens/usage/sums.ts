/** The API's daily buckets, by day and name, and their sums. */
import type { Schemas } from "@/api/client";
import type { Bucket } from "@/api/organization";
import type { Layer } from "@/parts/DayBars";

type Tokens = Schemas["CompletionsUsage"];
type Costs = Schemas["Costs"];

export interface ModelSum {
  model: string;
  requests: number;
  input: number;
  cached: number;
  output: number;
}

export interface ItemSum {
  item: string;
  quantity: number;
  unit: string;
  nanos: number;
}

/** Of a bucket what it says of tokens. */
export const tokensOf = (bucket: Bucket): Tokens[] =>
  bucket.results.filter((each): each is Tokens => each.object === "organization.usage.completions.result");

export const costsOf = (bucket: Bucket): Costs[] => bucket.results.filter((each): each is Costs => each.object === "organization.costs.result");

/** Whole nano-dollars, as the server keeps them: these add up exactly. */
export const nanosOf = (cost: Costs): number => Math.round(cost.amount.value * 1e9);

export const modelOf = (each: Tokens): string => each.model ?? "";
export const itemOf = (each: Costs): string => each.line_item ?? "";

export function byModel(buckets: Bucket[]): ModelSum[] {
  const sums = new Map<string, ModelSum>();
  for (const each of buckets.flatMap(tokensOf)) {
    const known = sums.get(modelOf(each)) ?? { model: modelOf(each), requests: 0, input: 0, cached: 0, output: 0 };
    sums.set(modelOf(each), add(known, { requests: each.num_model_requests, input: each.input_tokens, cached: each.input_cached_tokens, output: each.output_tokens }));
  }
  return [...sums.values()].sort((one, other) => other.input + other.output - one.input - one.output);
}

const add = (known: ModelSum, more: Omit<ModelSum, "model">): ModelSum => ({
  model: known.model,
  requests: known.requests + more.requests,
  input: known.input + more.input,
  cached: known.cached + more.cached,
  output: known.output + more.output,
});

export const total = (sums: ModelSum[]): ModelSum => sums.reduce(add, { model: "", requests: 0, input: 0, cached: 0, output: 0 });

export function byItem(buckets: Bucket[]): ItemSum[] {
  const sums = new Map<string, ItemSum>();
  for (const each of buckets.flatMap(costsOf)) {
    const known = sums.get(itemOf(each)) ?? { item: itemOf(each), quantity: 0, unit: each.quantity_unit ?? "", nanos: 0 };
    sums.set(itemOf(each), { ...known, quantity: known.quantity + (each.quantity ?? 0), nanos: known.nanos + nanosOf(each) });
  }
  return [...sums.values()].sort((one, other) => other.nanos - one.nanos || other.quantity - one.quantity);
}

/** A layer for each name, with the sum of its values for each bucket. */
export function layersOf<Result>(buckets: Bucket[], results: (bucket: Bucket) => Result[], name: (result: Result) => string, value: (result: Result) => number): Layer[] {
  const names = [...new Set(buckets.flatMap(results).map(name))];
  return names.map((each) => ({
    name: each,
    values: buckets.map((bucket) =>
      results(bucket)
        .filter((result) => name(result) === each)
        .reduce((sum, result) => sum + value(result), 0),
    ),
  }));
}
