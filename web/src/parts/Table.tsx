/** A table of things: sorted by a click on its heads, rows reached with j, k and Enter. */
import {
  flexRender,
  getCoreRowModel,
  getSortedRowModel,
  useReactTable,
  type ColumnDef,
  type SortingState,
} from "@tanstack/react-table";
import clsx from "clsx";
import { ArrowDown, ArrowUp } from "lucide-react";
import { useState } from "react";

import { useRowKeys } from "./rowkeys";

export type { ColumnDef } from "@tanstack/react-table";

declare module "@tanstack/react-table" {
  // eslint-disable-next-line @typescript-eslint/no-unused-vars
  interface ColumnMeta<TData, TValue> {
    /** Numbers stand at the right. */
    numeric?: boolean;
    /** Left out on narrow screens. */
    secondary?: boolean;
  }
}

interface TableProps<Row> {
  label: string;
  rows: Row[];
  // The value's type differs by column.
  columns: ColumnDef<Row, never>[];
  rowKey: (row: Row) => string;
  onOpen?: (row: Row) => void;
}

export function Table<Row>({ label, rows, columns, rowKey, onOpen }: TableProps<Row>) {
  const [sorting, setSorting] = useState<SortingState>([]);
  const table = useReactTable({
    data: rows,
    columns: columns as ColumnDef<Row>[],
    state: { sorting },
    onSortingChange: setSorting,
    getRowId: rowKey,
    getCoreRowModel: getCoreRowModel(),
    getSortedRowModel: getSortedRowModel(),
  });
  const shown = table.getRowModel().rows;
  const { current, register } = useRowKeys(shown.length, (index) => {
    const row = shown[index];
    if (row) onOpen?.(row.original);
  });
  return (
    <div className="relative overflow-x-auto rounded-xl border border-line bg-surface">
      <table aria-label={label} className="w-full border-collapse text-sm">
        <thead>
          {table.getHeaderGroups().map((group) => (
            <tr key={group.id} className="border-b border-line">
              {group.headers.map((header) => {
                const sorted = header.column.getIsSorted();
                const meta = header.column.columnDef.meta;
                const content = flexRender(header.column.columnDef.header, header.getContext());
                return (
                  <th
                    key={header.id}
                    aria-sort={sorted === "asc" ? "ascending" : sorted === "desc" ? "descending" : undefined}
                    className={clsx(
                      "px-4 py-2.5 text-xs font-medium whitespace-nowrap text-faint",
                      meta?.numeric ? "text-right" : "text-left",
                      meta?.secondary && "max-md:hidden",
                    )}
                  >
                    {header.column.getCanSort() ? (
                      <button type="button" className="inline-flex items-center gap-1 hover:text-ink" onClick={header.column.getToggleSortingHandler()}>
                        {content}
                        {sorted === "asc" && <ArrowUp size={12} />}
                        {sorted === "desc" && <ArrowDown size={12} />}
                      </button>
                    ) : (
                      content
                    )}
                  </th>
                );
              })}
            </tr>
          ))}
        </thead>
        <tbody>
          {shown.map((row, index) => (
            <tr
              key={row.id}
              ref={register(index)}
              onClick={() => onOpen?.(row.original)}
              className={clsx(
                "border-b border-line last:border-0",
                onOpen && "cursor-pointer hover:bg-hover/60",
                current === index && "bg-accent-wash",
              )}
            >
              {row.getVisibleCells().map((cell) => (
                <td
                  key={cell.id}
                  className={clsx(
                    "px-4 py-2.5 align-middle",
                    cell.column.columnDef.meta?.numeric && "num text-right",
                    cell.column.columnDef.meta?.secondary && "max-md:hidden",
                  )}
                >
                  {flexRender(cell.column.columnDef.cell, cell.getContext())}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
