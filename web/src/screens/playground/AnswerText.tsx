/** An answer as text, as a difference to column 1's, or by how sure the model was of each token. */
import clsx from "clsx";
import { useMemo, useState, type KeyboardEvent, type PointerEvent } from "react";

import { Diff } from "@/parts/Diff";
import { percent } from "@/lib/format";

import type { Answer } from "./ask";
import { piecesOf, probability, type Piece } from "./pieces";

export type View = "answers" | "difference" | "probabilities";

const TEXT = "text-sm leading-6 whitespace-pre-wrap [overflow-wrap:anywhere]";

export function AnswerText({ answer, view, first }: { answer: Answer; view: View; first: Answer | undefined }) {
  const pieces = useMemo(() => piecesOf(answer.text, answer.tokens), [answer.text, answer.tokens]);
  if (answer.text === "") return <p className="text-sm text-faint">{answer.state === "streaming" ? "…" : "nothing"}</p>;
  if (view === "difference" && first !== undefined && first.text !== "") {
    return (
      <p className={TEXT}>
        <Diff before={first.text} after={answer.text} />
        {first.text === answer.text && <span className="mt-2 block text-xs text-faint">the same as column 1</span>}
      </p>
    );
  }
  if (pieces === null) return <p className={TEXT}>{answer.text}</p>;
  return <Pieces pieces={pieces} isColored={view === "probabilities"} />;
}

/** Pointing at a token, or walking there with the arrow keys, tells its probability. */
function Pieces({ pieces, isColored }: { pieces: Piece[]; isColored: boolean }) {
  const [at, setAt] = useState<number | null>(null);
  const piece = at === null ? undefined : pieces[at];
  const onPointer = (event: PointerEvent) => {
    const index = event.target instanceof HTMLElement ? event.target.dataset["index"] : undefined;
    setAt(index === undefined ? null : Number(index));
  };
  const onKey = (event: KeyboardEvent) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step === 0) return;
    event.preventDefault();
    setAt((current) => Math.min(pieces.length - 1, Math.max(0, current === null ? 0 : current + step)));
  };
  return (
    <>
      <p
        tabIndex={0}
        role="group"
        aria-label="Answer, token by token: arrow keys tell the probabilities"
        className={clsx(TEXT, "rounded-sm")}
        onPointerOver={onPointer}
        onPointerLeave={() => setAt(null)}
        onKeyDown={onKey}
        onBlur={() => setAt(null)}
      >
        {pieces.map((each, index) => (
          <Token key={index} piece={each} index={index} isColored={isColored} isCurrent={index === at} />
        ))}
      </p>
      <div className="mt-2 min-h-10 text-xs text-soft" aria-live="polite">
        {piece ? <Legend piece={piece} /> : isColored && <span className="text-faint">The warmer, the less sure. Point at a token for its probability.</span>}
      </div>
    </>
  );
}

function Token({ piece, index, isColored, isCurrent }: { piece: Piece; index: number; isColored: boolean; isCurrent: boolean }) {
  const heat = isColored ? Math.round((1 - probability(piece)) * 62) : 0;
  return (
    <span
      data-index={index}
      style={heat > 0 ? { backgroundColor: `color-mix(in srgb, var(--c-heat) ${heat}%, transparent)` } : undefined}
      className={clsx("rounded-[3px]", isCurrent && "outline-2 outline-accent")}
    >
      {piece.text}
    </span>
  );
}

const shownToken = (text: string): string => JSON.stringify(text).slice(1, -1);

function Legend({ piece }: { piece: Piece }) {
  const chosen = piece.tokens[0];
  const others = piece.tokens.length === 1 && chosen ? chosen.top_logprobs.filter((each) => each.token !== chosen.token).slice(0, 4) : [];
  return (
    <span className="num flex flex-wrap items-baseline gap-x-3 gap-y-1">
      <span className="font-medium text-ink">
        <code className="rounded bg-sunken px-1 whitespace-pre-wrap [overflow-wrap:anywhere]">{shownToken(piece.text)}</code> {percent(probability(piece), 1)}
      </span>
      {others.map((each) => (
        <span key={each.token}>
          <code className="rounded bg-sunken px-1 whitespace-pre-wrap [overflow-wrap:anywhere]">{shownToken(each.token)}</code> {percent(Math.exp(each.logprob), 1)}
        </span>
      ))}
    </span>
  );
}
