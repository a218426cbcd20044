/** What was billed: a bar a day, a row a line item. */
import type { Bucket } from "@/api/organization";
import { DayBars } from "@/parts/DayBars";
import { Card } from "@/parts/Page";
import { count, dollars } from "@/lib/format";

import { CsvButton, isoDay } from "./CsvButton";
import { SumTable } from "./SumTable";
import { costsOf, itemOf, layersOf, nanosOf, type ItemSum } from "./sums";

const HEADS = ["day", "line_item", "quantity", "quantity_unit", "usd"];
const UNITS: Record<string, string> = { tokens: "tokens", duration_hours: "hours" };

export function CostCard({ buckets, items, nanos }: { buckets: Bucket[]; items: ItemSum[]; nanos: number }) {
  const rows = () =>
    buckets.flatMap((bucket) =>
      costsOf(bucket).map((each) => [isoDay(bucket.start_time), itemOf(each), each.quantity ?? "", each.quantity_unit ?? "", each.amount.value]),
    );
  return (
    <Card title="Cost by line item" actions={items.length > 0 && <CsvButton filename="costs.csv" heads={HEADS} rows={rows} />}>
      {items.length === 0 ? (
        <p className="text-sm text-soft">Nothing was billed in these days.</p>
      ) : (
        <>
          {nanos > 0 ? (
            <div className="pt-1 pb-5">
              <DayBars
                label="Cost a day"
                days={buckets.map((bucket) => bucket.start_time)}
                layers={layersOf(buckets, costsOf, itemOf, nanosOf)}
                say={(value) => dollars(value / 1e9)}
              />
            </div>
          ) : (
            <p className="pb-4 text-sm text-soft">
              All of this was free. Prices are set by <code>prices</code> in <code>tunesmith.toml</code>, and hold from then on.
            </p>
          )}
          <SumTable
            label="By line item"
            secondary={[1]}
            heads={["Line item", "Quantity", "Cost"]}
            rows={items.map((each) => [each.item, `${count(each.quantity)} ${UNITS[each.unit] ?? each.unit}`, dollars(each.nanos / 1e9)])}
            foot={["Total", "", dollars(nanos / 1e9)]}
          />
        </>
      )}
    </Card>
  );
}
