/** Chats and completions by model: a bar a day, a row a model. */
import { useState } from "react";

import type { Bucket } from "@/api/organization";
import { DayBars } from "@/parts/DayBars";
import { Card } from "@/parts/Page";
import { TabBar } from "@/parts/Tabs";
import { count } from "@/lib/format";

import { CsvButton, isoDay } from "./CsvButton";
import { SumTable } from "./SumTable";
import { layersOf, modelOf, tokensOf, total, type ModelSum } from "./sums";

const HEADS = ["day", "model", "requests", "input_tokens", "input_cached_tokens", "output_tokens"];

export function TokensCard({ buckets, models }: { buckets: Bucket[]; models: ModelSum[] }) {
  const [shown, setShown] = useState("tokens");
  const all = total(models);
  const rows = () =>
    buckets.flatMap((bucket) =>
      tokensOf(bucket).map((each) => [isoDay(bucket.start_time), modelOf(each), each.num_model_requests, each.input_tokens, each.input_cached_tokens, each.output_tokens]),
    );
  return (
    <Card title="Chats and completions by model" actions={models.length > 0 && <CsvButton filename="usage.csv" heads={HEADS} rows={rows} />}>
      {models.length === 0 ? (
        <p className="text-sm text-soft">No model was asked in these days.</p>
      ) : (
        <>
          <TabBar
            label="Shown"
            small
            value={shown}
            onChange={setShown}
            tabs={[
              { value: "tokens", label: "Tokens" },
              { value: "requests", label: "Requests" },
            ]}
          >
            <div className="pt-3 pb-5">
              <DayBars
                label={shown === "tokens" ? "Tokens a day, input and output" : "Requests a day"}
                days={buckets.map((bucket) => bucket.start_time)}
                layers={layersOf(buckets, tokensOf, modelOf, (each) => (shown === "tokens" ? each.input_tokens + each.output_tokens : each.num_model_requests))}
                say={count}
              />
            </div>
          </TabBar>
          <SumTable
            label="By model"
            secondary={[1, 3]}
            heads={["Model", "Requests", "Input tokens", "Cached input", "Output tokens"]}
            rows={models.map((each) => [each.model, count(each.requests), count(each.input), count(each.cached), count(each.output)])}
            foot={["Total", count(all.requests), count(all.input), count(all.cached), count(all.output)]}
          />
        </>
      )}
    </Card>
  );
}
