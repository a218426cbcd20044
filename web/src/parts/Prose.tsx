/** A sentence of the server's, in which `commands` stand between backticks. */
export function Prose({ text }: { text: string }) {
  return text.split("`").map((part, place) =>
    place % 2 === 1 ? (
      <code key={place} className="rounded bg-sunken px-1 py-0.5 font-mono text-xs">
        {part}
      </code>
    ) : (
      part
    ),
  );
}
