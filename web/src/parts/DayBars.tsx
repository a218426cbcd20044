/** A bar for each day, in layers by name; drawn with boxes, as a month needs no canvas. */

export interface Layer {
  name: string;
  /** One value a day. */
  values: number[];
}

interface DayBarsProps {
  label: string;
  /** When the days begin, UTC, in seconds. */
  days: number[];
  layers: Layer[];
  say: (value: number) => string;
}

// As many as there are colours to tell apart.
const MAX_LAYERS = 6;

const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);

export const dayName = (startS: number): string =>
  new Date(startS * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

export function DayBars({ label, days, layers, say }: DayBarsProps) {
  const shown = joined(layers);
  const totals = days.map((_, day) => sum(shown.map((layer) => layer.values[day] ?? 0)));
  const most = Math.max(...totals);
  const first = days[0];
  const last = days[days.length - 1];
  if (first === undefined || last === undefined) return null;
  return (
    <figure aria-label={label}>
      <div className="num mb-1 text-xs text-faint">{most > 0 ? `most in a day: ${say(most)}` : "nothing"}</div>
      <div aria-hidden className="flex h-36 items-end gap-0.5 border-b border-line-strong/50 sm:gap-1">
        {days.map((start, day) => (
          <div key={start} title={said(start, day, shown, say)} className="flex h-full flex-1 flex-col justify-end rounded-t-[3px] hover:bg-hover">
            {shown.map((layer, place) => {
              const value = layer.values[day] ?? 0;
              return value > 0 && <div key={layer.name} style={{ height: `max(2px, ${(100 * value) / most}%)`, background: colour(place) }} />;
            })}
          </div>
        ))}
      </div>
      <div className="num mt-1 flex justify-between text-xs text-faint">
        <span>{dayName(first)}</span>
        <span>{dayName(last)}</span>
      </div>
      <ul className="mt-3 flex flex-wrap gap-x-4 gap-y-1 text-xs text-soft">
        {shown.map((layer, place) => (
          <li key={layer.name} className="flex min-w-0 items-center gap-1.5">
            <span aria-hidden className="size-2.5 shrink-0 rounded-sm" style={{ background: colour(place) }} />
            <span className="[overflow-wrap:anywhere]">{layer.name}</span>
          </li>
        ))}
      </ul>
      <div className="sr-only">
        <table>
          <caption>{label}</caption>
          <tbody>
            {days.map((start, day) => (
              <tr key={start}>
                <th scope="row">{dayName(start)}</th>
                <td>{say(totals[day] ?? 0)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </figure>
  );
}

const colour = (place: number): string => `var(--c-job-${place + 1})`;

/** The largest first; those for which no colour is left are one layer. */
function joined(layers: Layer[]): Layer[] {
  const sorted = [...layers].sort((one, other) => sum(other.values) - sum(one.values));
  if (sorted.length <= MAX_LAYERS) return sorted;
  const rest = sorted.slice(MAX_LAYERS - 1);
  const values = (rest[0]?.values ?? []).map((_, day) => sum(rest.map((layer) => layer.values[day] ?? 0)));
  return [...sorted.slice(0, MAX_LAYERS - 1), { name: `${rest.length} others`, values }];
}

function said(start: number, day: number, layers: Layer[], say: (value: number) => string): string {
  const parts = layers.filter((layer) => (layer.values[day] ?? 0) > 0).map((layer) => `${layer.name}: ${say(layer.values[day] ?? 0)}`);
  return [dayName(start), ...(parts.length > 0 ? parts : ["nothing"])].join("\n");
}
