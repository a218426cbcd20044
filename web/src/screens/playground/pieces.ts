/** Tokens as pieces of text: a character may be spread over several of them. */
import type { Token } from "./ask";

export interface Piece {
  text: string;
  tokens: Token[];
}

/** The answer cut into its tokens; null where they do not make up the text (a stop word was cut). */
export function piecesOf(text: string, tokens: Token[]): Piece[] | null {
  const pieces: Piece[] = [];
  let bytes: number[] = [];
  let held: Token[] = [];
  for (const token of tokens) {
    held.push(token);
    bytes.push(...(token.bytes ?? new TextEncoder().encode(token.token)));
    const read = decoded(bytes);
    if (read === null) continue;
    pieces.push({ text: read, tokens: held });
    bytes = [];
    held = [];
  }
  // What is streamed may be a few tokens behind or ahead; what is shown are whole pieces of it.
  const joined = pieces.map((piece) => piece.text).join("");
  return joined.startsWith(text) && pieces.length > 0 ? cut(pieces, text.length) : null;
}

function decoded(bytes: number[]): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
  } catch {
    return null;
  }
}

function cut(pieces: Piece[], length: number): Piece[] {
  const kept: Piece[] = [];
  for (const piece of pieces) {
    if (length <= 0) break;
    kept.push({ ...piece, text: piece.text.slice(0, length) });
    length -= piece.text.length;
  }
  return kept;
}

/** The probability of a piece: of all its tokens, one after the other. */
export const probability = (piece: Piece): number => Math.exp(piece.tokens.reduce((sum, token) => sum + token.logprob, 0));
