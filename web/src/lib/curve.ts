/** Curves of many points: smoothed, and thinned to what a canvas can show. */

export type Values = (number | null)[];

/** The exponential mean, corrected for its beginning; `weight` 0 leaves the values as they are. */
export function smoothed(values: Values, weight: number): Values {
  if (weight === 0) return values;
  let mean = 0;
  let share = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return mean / share;
  });
}

/** The first index whose x is at least `value`. */
export function indexAt(x: number[], value: number): number {
  let low = 0;
  let high = x.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((x[middle] as number) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The index and value of the smallest value; null where there is none. */
export function lowest(values: Values): { index: number; value: number } | null {
  let best: { index: number; value: number } | null = null;
  values.forEach((value, index) => {
    if (value !== null && (best === null || value < best.value)) best = { index, value };
  });
  return best;
}

/**
 * Whether the last `patience` measured values each rose notably over the one before: the rule by
 * which the trainer warns.
 */
export function rises(values: Values, patience = 2, notable = 0.01): boolean {
  const recent = values.filter((value): value is number => value !== null).slice(-patience - 1);
  return (
    recent.length > patience &&
    recent.slice(1).every((value, index) => value > (recent[index] as number) * (1 + notable))
  );
}

/** Missing values are NaN here: such arrays are read many times faster. */
export const packed = (values: Values): Float64Array => Float64Array.from(values, (value) => value ?? NaN);

/**
 * The indices from `from` to `to` (exclusive) that are enough to draw all series over `bins`
 * columns: of each column and series the smallest and the largest value. Drawn, they look like all.
 */
export function thinned(series: Float64Array[], from: number, to: number, bins: number): number[] {
  const kept: number[] = [];
  const width = (to - from) / bins;
  for (let bin = 0; bin < bins; bin += 1) {
    const start = from + Math.floor(bin * width);
    const end = bin === bins - 1 ? to : from + Math.floor((bin + 1) * width);
    const own: number[] = [];
    for (const values of series) {
      let least = -1;
      let most = -1;
      let low = Infinity;
      let high = -Infinity;
      for (let index = start; index < end; index += 1) {
        const value = values[index] as number;
        if (value < low) {
          low = value;
          least = index;
        }
        if (value > high) {
          high = value;
          most = index;
        }
      }
      if (least >= 0) own.push(least);
      if (most >= 0 && most !== least) own.push(most);
    }
    own.sort((a, b) => a - b);
    own.forEach((index, place) => {
      if (index !== own[place - 1]) kept.push(index);
    });
  }
  return kept;
}
