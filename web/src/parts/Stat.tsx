import type { ReactNode } from "react";

/** A number and what it counts. */
export function Stat({ label, children, note }: { label: ReactNode; children: ReactNode; note?: ReactNode }) {
  return (
    <div className="min-w-0">
      <dt className="text-xs text-faint">{label}</dt>
      <dd className="num mt-0.5 text-xl font-semibold tracking-tight">{children}</dd>
      {note && <dd className="mt-0.5 text-xs text-soft">{note}</dd>}
    </div>
  );
}

/** Label and value in a line, for lists of settings. */
export function Pair({ label, children }: { label: ReactNode; children: ReactNode }) {
  return (
    <div className="flex items-baseline justify-between gap-6 border-b border-line py-2 text-sm last:border-0">
      <dt className="shrink-0 text-soft">{label}</dt>
      <dd className="num min-w-0 text-right [overflow-wrap:anywhere]">{children}</dd>
    </div>
  );
}
