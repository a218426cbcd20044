/** Names with their sums, and a line below that adds them up. */
import clsx from "clsx";

interface SumTableProps {
  label: string;
  /** Of the names first, then of the numbers. */
  heads: string[];
  rows: string[][];
  foot: string[];
  /** Columns that are left out on narrow screens. */
  secondary: number[];
}

export function SumTable({ label, heads, rows, foot, secondary }: SumTableProps) {
  return (
    <div className="overflow-x-auto" tabIndex={0} role="region" aria-label={label}>
      <table aria-label={label} className="w-full border-collapse text-sm">
        <thead>
          <tr className="border-b border-line text-xs text-faint">
            {heads.map((head, place) => (
              <th key={head} scope="col" className={clsx("py-2 align-bottom font-medium", place === 0 ? "pr-2 text-left" : "pl-4 text-right", secondary.includes(place) && "max-sm:hidden")}>
                {head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row[0]} className="border-b border-line">
              <Cells row={row} secondary={secondary} mono />
            </tr>
          ))}
        </tbody>
        <tfoot>
          <tr className="font-semibold">
            <Cells row={foot} secondary={secondary} />
          </tr>
        </tfoot>
      </table>
    </div>
  );
}

function Cells({ row, secondary, mono = false }: { row: string[]; secondary: number[]; mono?: boolean }) {
  const [name, ...numbers] = row;
  return (
    <>
      <th scope="row" className={clsx("min-w-28 py-2 pr-2 text-left [overflow-wrap:anywhere]", mono ? "font-mono text-xs font-normal" : "font-semibold")}>
        {name}
      </th>
      {numbers.map((number, place) => (
        <td key={place} className={clsx("num py-2 pl-4 text-right whitespace-nowrap", secondary.includes(place + 1) && "max-sm:hidden")}>
          {number}
        </td>
      ))}
    </>
  );
}
