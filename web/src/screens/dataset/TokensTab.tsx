/** A row as the model sees it: what is trained, what is only read, what does not fit. */
import { useQuery } from "@tanstack/react-query";
import clsx from "clsx";
import { ChevronLeft, ChevronRight } from "lucide-react";
import { Fragment, useEffect } from "react";

import type { Schemas } from "@/api/client";
import { indexQuery, tokensQuery } from "@/api/data";
import { IconButton } from "@/parts/Button";
import { isTyping } from "@/parts/rowkeys";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { count, percent } from "@/lib/format";

import { BaseSelect } from "./BaseSelect";
import { useBase, useDatasetPlace } from "./Dataset";

const NAMES: Record<string, string> = {
  prompt: "The prompt, up to where the model begins",
  preferred: "The prompt with the preferred answer",
  rejected: "The prompt with the rejected answer",
};

export function TokensTab() {
  const { fileId, search, go } = useDatasetPlace();
  const { base } = useBase();
  const index = useQuery(indexQuery(fileId, "", null));
  const number = Math.min(search.row ?? 1, Math.max(1, index.data?.num_rows ?? 1));
  const offset = index.data?.offset[number - 1];
  const shown = useQuery({ ...tokensQuery(fileId, offset ?? 0, base ?? ""), enabled: offset !== undefined && base !== null });
  const numRows = index.data?.num_rows ?? 0;
  const step = (by: number) => go({ row: Math.min(numRows, Math.max(1, number + by)) }, true);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (isTyping(event) || event.ctrlKey || event.metaKey) return;
      if (event.key === "j") step(1);
      if (event.key === "k") step(-1);
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  });
  if (index.isPending) return <Loading lines={6} />;
  if (index.isError) return <ErrorBox error={index.error} retry={() => void index.refetch()} />;
  if (numRows === 0) return <Empty title="This file has no rows" />;
  return (
    <div className="flex flex-col gap-5">
      <div className="flex flex-wrap items-center gap-x-5 gap-y-3">
        <div className="flex items-center gap-1">
          <IconButton label="Row before" disabled={number <= 1} onClick={() => step(-1)}>
            <ChevronLeft size={17} />
          </IconButton>
          <label className="flex items-center gap-2 text-sm">
            Row
            <input
              type="number"
              min={1}
              max={numRows}
              value={number}
              onChange={(event) => go({ row: Number(event.target.value) || 1 }, true)}
              className="num h-9 w-24 rounded-lg border border-line-strong/60 bg-surface px-2 text-sm"
            />
            <span className="num text-faint">of {count(numRows)}</span>
          </label>
          <IconButton label="Row after" disabled={number >= numRows} onClick={() => step(1)}>
            <ChevronRight size={17} />
          </IconButton>
        </div>
        <BaseSelect />
        <Legend />
      </div>
      {shown.isPending && <Loading lines={5} />}
      {shown.isError && <ErrorBox error={shown.error} />}
      {shown.data?.sequences.map((sequence, place) => <SequenceView key={place} sequence={sequence} limit={shown.data.max_tokens} />)}
      {shown.data?.is_cut && <p className="text-sm text-warn">This row has more tokens than can be drawn; the rest is left out here.</p>}
    </div>
  );
}

function Legend() {
  return (
    <ul className="flex flex-wrap items-center gap-x-4 gap-y-1 text-xs text-soft">
      <li className="flex items-center gap-1.5">
        <span className="rounded-sm bg-accent px-1 font-mono text-on-accent">trained</span>
      </li>
      <li className="flex items-center gap-1.5">
        <span className="rounded-sm bg-sunken px-1 font-mono text-faint">only read</span>
      </li>
      <li className="flex items-center gap-1.5">
        <span className="rounded-sm px-1 font-mono outline outline-dashed outline-line-strong">control token</span>
      </li>
      <li className="flex items-center gap-1.5">
        <span className="rounded-sm px-1 font-mono text-bad line-through">beyond the limit</span>
      </li>
    </ul>
  );
}

function SequenceView({ sequence, limit }: { sequence: Schemas["ShownSequence"]; limit: number }) {
  const { num_tokens, num_trained, num_beyond, num_beyond_trained } = sequence;
  const cut = sequence.tokens.findIndex((token) => token.beyond);
  return (
    <section className="rounded-xl border border-line bg-surface">
      <header className="flex flex-wrap items-baseline justify-between gap-x-4 gap-y-1 border-b border-line px-5 py-3 text-sm">
        <h2 className="font-semibold">{NAMES[sequence.name] ?? (sequence.name || "The whole row")}</h2>
        <p className="num text-soft">
          {count(num_tokens)} tokens, {count(num_trained)} trained{num_tokens > 0 && ` (${percent(num_trained / num_tokens)})`}
          {num_beyond > 0 && (
            <span className="text-bad">
              {" "}
              · {count(num_beyond)} beyond the limit of {count(limit)}, {count(num_beyond_trained)} of them trained
            </span>
          )}
        </p>
      </header>
      <p className="px-5 py-4 font-mono text-[0.8rem] leading-7 [overflow-wrap:anywhere] whitespace-pre-wrap">
        {sequence.tokens.map((token, place) => (
          <Fragment key={place}>
            {place === cut && (
              <span className="my-2 flex items-center gap-3 font-sans text-xs font-medium text-bad">
                <span className="h-px flex-1 bg-bad" />
                cut here: {count(limit)} tokens is the limit
                <span className="h-px flex-1 bg-bad" />
              </span>
            )}
            <TokenView token={token} shade={place % 2 === 0} />
          </Fragment>
        ))}
      </p>
    </section>
  );
}

function TokenView({ token, shade }: { token: Schemas["ShownToken"]; shade: boolean }) {
  return (
    <span
      title={`id ${token.ids.join(", ")}${token.trained ? ", trained" : ""}`}
      className={clsx(
        "rounded-[3px] py-0.5",
        token.beyond && "text-bad line-through",
        !token.beyond && token.trained && (shade ? "bg-accent text-on-accent" : "bg-accent/88 text-on-accent"),
        !token.beyond && !token.trained && (shade ? "bg-sunken text-faint" : "text-faint"),
        token.special && "outline outline-1 -outline-offset-1 outline-line-strong outline-dashed",
      )}
    >
      {visible(token.text)}
    </span>
  );
}

/** A line break is a token's text; what is seen must stand for it. */
const visible = (text: string): string => text.replaceAll("\n", "⏎\n").replaceAll("\t", "⇥   ");
