/** A row token by token, each the warmer the less the model expected it. */
import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import clsx from "clsx";
import { useState } from "react";

import type { Schemas } from "@/api/client";
import { rowTokensQuery, type JobNow } from "@/api/jobs";
import { Select } from "@/parts/fields";
import { ErrorBox, Loading } from "@/parts/states";
import { count, percent } from "@/lib/format";

type Token = Schemas["HeatToken"];

// A loss of 4 is a probability of 2 %: as warm as it gets.
const HOTTEST = 4;

export function Heat({ now, row }: { now: JobNow; row: number }) {
  const search = useSearch({ from: "/shell/jobs/$jobId" });
  const navigate = useNavigate();
  const { job } = now;
  const models = [...(job.fine_tuned_model === null ? [] : [job.fine_tuned_model]), job.model];
  const by = search.by !== undefined && models.includes(search.by) ? search.by : (models[0] ?? job.model);
  const tokens = useQuery(rowTokensQuery(now.id, row, by));
  const [over, setOver] = useState<Token | null>(null);
  return (
    <section className="min-w-0 self-start rounded-xl border border-line bg-surface">
      <div className="flex flex-wrap items-center justify-between gap-x-4 gap-y-2 border-b border-line px-5 py-2.5">
        <h2 className="text-sm font-semibold">Row {count(row)}, token by token</h2>
        <div className="flex min-w-0 flex-wrap items-center gap-2">
          <Link to="/data/$fileId" params={{ fileId: job.training_file }} search={{ tab: "explore", row }} className="text-sm text-accent hover:underline">
            Open in the file
          </Link>
          <Select
            aria-label="Scored by"
            value={by}
            className="max-w-full"
            options={models.map((model) => ({ value: model, label: model === job.model ? `before: ${model}` : `after: ${model}` }))}
            onChange={(event) =>
              void navigate({ to: "/jobs/$jobId", params: { jobId: now.id }, search: { ...search, row, by: event.target.value }, replace: true })
            }
          />
        </div>
      </div>
      <div className="px-5 py-4">
        {tokens.isPending ? (
          <Loading lines={5} label="Scoring the row" />
        ) : tokens.isError ? (
          <ErrorBox error={tokens.error} retry={() => void tokens.refetch()} />
        ) : (
          tokens.data.sequences.map((sequence) => (
            <div key={sequence.name} className="mb-5 last:mb-0">
              <p className="num mb-2 text-xs text-faint">
                {sequence.name && `${sequence.name} · `}
                {sequence.loss === null ? "nothing is trained" : `mean loss of the trained tokens ${sequence.loss.toFixed(3)}`}
              </p>
              <p className="font-mono text-sm leading-7 whitespace-pre-wrap [overflow-wrap:anywhere]" onPointerLeave={() => setOver(null)}>
                {sequence.tokens.map((token, index) => (
                  <Piece key={index} token={token} onOver={setOver} />
                ))}
              </p>
            </div>
          ))
        )}
      </div>
      <Legend token={over} />
    </section>
  );
}

function Piece({ token, onOver }: { token: Token; onOver: (token: Token) => void }) {
  const heat = token.loss === null || !token.trained ? 0 : Math.min(1, token.loss / HOTTEST);
  return (
    <span
      onPointerEnter={() => onOver(token)}
      title={token.loss === null ? undefined : `loss ${token.loss.toFixed(2)}`}
      style={heat > 0 ? { backgroundColor: `color-mix(in srgb, var(--c-heat) ${Math.round(heat * 62)}%, transparent)` } : undefined}
      className={clsx("rounded-[3px]", token.trained ? "border-b border-line-strong/50 text-ink" : "text-faint", token.special && "italic")}
    >
      {token.text}
    </span>
  );
}

function Legend({ token }: { token: Token | null }) {
  return (
    <div className="flex min-h-11 flex-wrap items-center justify-between gap-x-6 gap-y-1 border-t border-line px-5 py-2 text-xs text-soft">
      {token === null || token.loss === null ? (
        <span className="text-faint">Point at a token for its probability. Grey tokens are not trained.</span>
      ) : (
        <span className="num [overflow-wrap:anywhere]">
          <code className="rounded bg-sunken px-1 whitespace-pre">{JSON.stringify(token.text).slice(1, -1)}</code> probability {percent(Math.exp(-token.loss), 1)}, loss {token.loss.toFixed(2)}
          {token.choice !== null && (
            <>
              {" "}
              · likelier here: <code className="rounded bg-sunken px-1 whitespace-pre">{JSON.stringify(token.choice).slice(1, -1)}</code>
            </>
          )}
        </span>
      )}
      <span className="flex items-center gap-2" aria-hidden>
        expected
        <span className="h-2 w-24 rounded-full" style={{ background: "linear-gradient(to right, transparent, color-mix(in srgb, var(--c-heat) 62%, transparent))" }} />
        surprising
      </span>
    </div>
  );
}
