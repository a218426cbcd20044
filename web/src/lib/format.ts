/** Numbers and times as people read them. */

const grouped = new Intl.NumberFormat("en-US");
const compactly = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

export const count = (value: number): string => grouped.format(value);
export const compact = (value: number): string => compactly.format(value);

export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let index = 0;
  while (value >= 1000 && index < units.length - 1) {
    value /= 1000;
    index += 1;
  }
  return `${index === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[index]}`;
}

export const percent = (share: number, digits = 0): string => `${(share * 100).toFixed(digits)} %`;

/** "1 row", "2 rows". */
export const plural = (number: number, one: string, many = `${one}s`): string =>
  `${count(number)} ${number === 1 ? one : many}`;

export function duration(seconds: number): string {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}

export const when = (timeS: number): string =>
  new Date(timeS * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** "3 min ago"; for times of the last month, else the date. */
export function ago(timeS: number, nowMs = Date.now()): string {
  const pastS = nowMs / 1000 - timeS;
  if (pastS < 45) return "just now";
  if (pastS < 3600) return `${Math.max(1, Math.round(pastS / 60))} min ago`;
  if (pastS < 86_400) return `${Math.round(pastS / 3600)} h ago`;
  if (pastS < 30 * 86_400) return `${plural(Math.round(pastS / 86_400), "day")} ago`;
  return new Date(timeS * 1000).toLocaleDateString("en-GB", { dateStyle: "medium" });
}

const dollarsOf = new Intl.NumberFormat("en-US", { style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: 9 });

/** To the last of the nine digits that prices have: sums of small amounts are not rounded away. */
export const dollars = (usd: number): string => dollarsOf.format(usd);
