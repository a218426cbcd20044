/** Names with their sums, and a line below that adds them up. */
interface SumTableProps {
  label: string;
  /** Of the names first, then of the numbers. */
  heads: string[];
  rows: string[][];
  foot: string[];
}

export function SumTable({ label, heads, rows, foot }: SumTableProps) {
  return (
    <div className="overflow-x-auto" tabIndex={0} role="region" aria-label={label}>
      <table aria-label={label} className="w-full border-collapse text-sm">
        <thead>
          <tr className="border-b border-line text-xs text-faint">
            {heads.map((head, place) => (
              <th key={head} scope="col" className={`py-2 font-medium whitespace-nowrap ${place === 0 ? "pr-4 text-left" : "pl-4 text-right"}`}>
                {head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row[0]} className="border-b border-line">
              <Cells row={row} mono />
            </tr>
          ))}
        </tbody>
        <tfoot>
          <tr className="font-semibold">
            <Cells row={foot} />
          </tr>
        </tfoot>
      </table>
    </div>
  );
}

function Cells({ row, mono = false }: { row: string[]; mono?: boolean }) {
  const [name, ...numbers] = row;
  return (
    <>
      <th scope="row" className={`min-w-32 py-2 pr-4 text-left [overflow-wrap:anywhere] ${mono ? "font-mono text-xs font-normal" : "font-semibold"}`}>
        {name}
      </th>
      {numbers.map((number, place) => (
        <td key={place} className="num py-2 pl-4 text-right whitespace-nowrap">
          {number}
        </td>
      ))}
    </>
  );
}
