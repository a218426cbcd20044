/** Bars over bins, drawn with boxes: a few dozen need no canvas. */
import { compact, count } from "@/lib/format";

export interface Bin {
  low: number;
  high: number;
  count: number;
}

interface HistogramProps {
  label: string;
  bins: Bin[];
  /** A line that values should stay under, in the bins' unit. */
  limit?: number | null;
}

export function Histogram({ label, bins, limit = null }: HistogramProps) {
  const most = Math.max(1, ...bins.map((bin) => bin.count));
  const first = bins[0];
  const last = bins[bins.length - 1];
  if (!first || !last) return <p className="text-sm text-faint">Nothing to count.</p>;
  const beyond = limit === null ? 0 : bins.filter((bin) => bin.low > limit).length;
  return (
    <figure aria-label={label}>
      <div className="flex h-36 items-end justify-center gap-px border-b border-line-strong/50">
        {bins.map((bin, index) => (
          <div
            key={bin.low}
            title={`${count(bin.low)} to ${count(bin.high)}: ${count(bin.count)} rows`}
            className={`max-w-24 flex-1 rounded-t-[3px] ${index >= bins.length - beyond ? "bg-bad" : "bg-accent"}`}
            style={{ height: bin.count === 0 ? 0 : `max(2px, ${(100 * bin.count) / most}%)` }}
          />
        ))}
      </div>
      <div className="num mt-1 flex justify-between text-xs text-faint">
        <span>{compact(first.low)}</span>
        <span>{compact(last.high)}</span>
      </div>
      <table className="sr-only">
        <caption>{label}</caption>
        <tbody>
          {bins.map((bin) => (
            <tr key={bin.low}>
              <th scope="row">{`${bin.low} to ${bin.high}`}</th>
              <td>{bin.count}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </figure>
  );
}

/** Counts by name, the longest bar first. */
export function Bars({ label, counts }: { label: string; counts: { text: string; count: number }[] }) {
  const most = Math.max(1, ...counts.map((each) => each.count));
  return (
    <ul aria-label={label} className="flex flex-col gap-2">
      {counts.map((each) => (
        <li key={each.text} className="text-sm">
          <div className="flex items-baseline justify-between gap-4">
            <span className="min-w-0 truncate" title={each.text}>
              {each.text === "" ? <em className="text-faint">empty</em> : each.text}
            </span>
            <span className="num text-xs text-soft">{count(each.count)}</span>
          </div>
          <div aria-hidden className="mt-1 h-1.5 rounded-full bg-sunken">
            <div className="h-full rounded-full bg-accent" style={{ width: `${(100 * each.count) / most}%` }} />
          </div>
        </li>
      ))}
    </ul>
  );
}
