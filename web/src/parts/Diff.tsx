/** Two texts, word by word: what went and what came. */
import { diffWords } from "@/lib/diff";

export function Diff({ before, after }: { before: string; after: string }) {
  return (
    <span className="[overflow-wrap:anywhere] whitespace-pre-wrap">
      {diffWords(before, after).map((piece, index) =>
        piece.kind === "same" ? (
          <span key={index}>{piece.text}</span>
        ) : piece.kind === "gone" ? (
          <del key={index} className="rounded-sm bg-bad-wash text-bad decoration-bad/60">
            {piece.text}
          </del>
        ) : (
          <ins key={index} className="rounded-sm bg-good-wash text-good no-underline">
            {piece.text}
          </ins>
        ),
      )}
    </span>
  );
}
