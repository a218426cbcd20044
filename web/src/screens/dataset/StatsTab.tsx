/** How long, how many turns, which answers: the numbers of a file as pictures. */
import { useQuery } from "@tanstack/react-query";

import { statsQuery } from "@/api/data";
import type { Schemas } from "@/api/client";
import { Button } from "@/parts/Button";
import { Bars, Histogram } from "@/parts/Histogram";
import { Card } from "@/parts/Page";
import { Pair, Stat } from "@/parts/Stat";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { ApiError } from "@/api/client";
import { count, percent } from "@/lib/format";

import { BaseSelect } from "./BaseSelect";
import { useBase, useDatasetPlace } from "./Dataset";

const SHOWN_LABELS = 12;

export function StatsTab() {
  const { fileId, go } = useDatasetPlace();
  const { base } = useBase();
  const stats = useQuery({ ...statsQuery(fileId, base ?? ""), enabled: base !== null });
  if (stats.isPending) return <Loading lines={7} label="Counting" />;
  if (stats.isError) {
    if (stats.error instanceof ApiError && stats.error.status === 400) {
      return (
        <Empty title="A row cannot be counted" action={<Button kind="primary" onClick={() => go({ tab: "report" })}>See the report</Button>}>
          {stats.error.message}
        </Empty>
      );
    }
    return <ErrorBox error={stats.error} retry={() => void stats.refetch()} />;
  }
  return <Numbers found={stats.data} />;
}

function Numbers({ found }: { found: Schemas["Stats"] }) {
  const bins = (name: string) => found.histograms[name] ?? [];
  return (
    <div className="flex flex-col gap-6">
      <Card title="At a glance" actions={<BaseSelect />}>
        <dl className="grid grid-cols-2 gap-x-6 gap-y-5 md:grid-cols-4">
          <Stat label="Rows">{count(found.num_rows)}</Stat>
          <Stat label="Tokens" note={found.num_tokens > 0 ? `${percent(found.num_trained_tokens / found.num_tokens)} trained` : undefined}>
            {count(found.num_tokens)}
          </Stat>
          <Stat label="System messages" note="different ones">
            {count(found.num_system_messages)}
          </Stat>
          <Stat label="Rows with tools">{count(found.num_with_tools)}</Stat>
        </dl>
        {found.num_not_rendered > 0 && <p className="mt-4 text-sm text-warn">{count(found.num_not_rendered)} rows cannot be rendered for this base.</p>}
      </Card>
      <div className="grid gap-6 lg:grid-cols-2">
        <Spread title="Tokens a row" bins={bins("tokens")} spread={found.tokens} limit={found.max_tokens} />
        <Spread title="User and assistant messages a row" bins={bins("turns")} spread={found.turns} />
        <Spread title={bins("rejected_characters").length > 0 ? "Characters of a preferred answer" : "Characters of an answer"} bins={bins("answer_characters")} spread={found.answer_characters} />
        {bins("rejected_characters").length > 0 && <Spread title="Characters of a rejected answer" bins={bins("rejected_characters")} spread={found.rejected_characters} />}
        {found.labels.length > 0 && (
          <Card title={`${count(found.num_labels)} labels`} actions={<span className="num text-xs text-faint">balance {(found.balance ?? 0).toFixed(2)}, 1 is even</span>}>
            <Bars label="Labels" counts={found.labels.slice(0, SHOWN_LABELS)} />
            {found.num_labels > SHOWN_LABELS && <p className="mt-3 text-xs text-faint">The {SHOWN_LABELS} most frequent are shown.</p>}
          </Card>
        )}
        <Card title="Messages by role">
          <Bars label="Messages by role" counts={sorted(found.roles)} />
        </Card>
        {found.systems.length > 0 && (
          <Card title="System messages">
            <Bars label="System messages" counts={found.systems.slice(0, 8)} />
          </Card>
        )}
        {Object.keys(found.fields).length > 0 && (
          <Card title="Fields">
            <Bars label="Fields" counts={sorted(found.fields).slice(0, SHOWN_LABELS)} />
          </Card>
        )}
      </div>
    </div>
  );
}

const sorted = (counts: Record<string, number>) =>
  Object.entries(counts)
    .map(([text, number]) => ({ text, count: number }))
    .sort((one, other) => other.count - one.count);

function Spread({ title, bins, spread, limit = null }: { title: string; bins: Schemas["Bin"][]; spread: Schemas["Spread"] | null; limit?: number | null }) {
  return (
    <Card title={title} actions={limit !== null && <span className="num text-xs text-faint">limit {count(limit)}</span>}>
      <Histogram label={title} bins={bins} limit={limit} />
      {spread && (
        <dl className="mt-3 grid grid-cols-2 gap-x-8 sm:grid-cols-2">
          <Pair label="median">{count(spread.median)}</Pair>
          <Pair label="mean">{spread.mean.toFixed(1)}</Pair>
          <Pair label="10 % below">{count(Math.round(spread.p10))}</Pair>
          <Pair label="10 % above">{count(Math.round(spread.p90))}</Pair>
        </dl>
      )}
    </Card>
  );
}
