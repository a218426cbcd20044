/** The shortest word-by-word edit between two texts (Myers' greedy algorithm). */

export interface Piece {
  kind: "same" | "gone" | "new";
  text: string;
}

// Beyond this many edits the middle is shown as one change: the search is quadratic in them.
const MAX_EDITS = 1500;

export function diffWords(before: string, after: string): Piece[] {
  const a = words(before);
  const b = words(after);
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const pieces: Piece[] = [];
  push(pieces, "same", a.slice(0, start).join(""));
  middle(pieces, a.slice(start, a.length - end), b.slice(start, b.length - end));
  push(pieces, "same", a.slice(a.length - end).join(""));
  return pieces;
}

const words = (text: string): string[] => text.match(/[\p{L}\p{N}_]+|\s+|[^\p{L}\p{N}_\s]/gu) ?? [];

function push(pieces: Piece[], kind: Piece["kind"], text: string): void {
  if (text === "") return;
  const last = pieces[pieces.length - 1];
  if (last?.kind === kind) last.text += text;
  else pieces.push({ kind, text });
}

function middle(pieces: Piece[], a: string[], b: string[]): void {
  const trace = search(a, b);
  if (trace === null) {
    push(pieces, "gone", a.join(""));
    push(pieces, "new", b.join(""));
    return;
  }
  const steps: Piece[] = [];
  let x = a.length;
  let y = b.length;
  for (let edits = trace.length - 1; edits >= 0; edits -= 1) {
    const reach = trace[edits] as Map<number, number>;
    const k = x - y;
    const down = k === -edits || (k !== edits && (reach.get(k - 1) ?? -1) < (reach.get(k + 1) ?? -1));
    const previousX = edits === 0 ? 0 : (reach.get(down ? k + 1 : k - 1) ?? 0);
    const previousY = edits === 0 ? 0 : previousX - (down ? k + 1 : k - 1);
    while (x > previousX && y > previousY) {
      x -= 1;
      y -= 1;
      steps.push({ kind: "same", text: a[x] as string });
    }
    if (edits === 0) break;
    if (down) steps.push({ kind: "new", text: b[(y -= 1)] as string });
    else steps.push({ kind: "gone", text: a[(x -= 1)] as string });
  }
  for (const step of steps.reverse()) push(pieces, step.kind, step.text);
}

/** For each number of edits the farthest x on each diagonal before it, or null beyond MAX_EDITS. */
function search(a: string[], b: string[]): Map<number, number>[] | null {
  const trace: Map<number, number>[] = [];
  const reach = new Map<number, number>([[1, 0]]);
  for (let edits = 0; edits <= Math.min(MAX_EDITS, a.length + b.length); edits += 1) {
    trace.push(new Map(reach));
    for (let k = -edits; k <= edits; k += 2) {
      const down = k === -edits || (k !== edits && (reach.get(k - 1) ?? -1) < (reach.get(k + 1) ?? -1));
      let x = down ? (reach.get(k + 1) ?? 0) : (reach.get(k - 1) ?? 0) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      reach.set(k, x);
      if (x >= a.length && x - k >= b.length) return trace;
    }
  }
  return null;
}
