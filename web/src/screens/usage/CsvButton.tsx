/** The API's numbers by day, for spreadsheets. */
import { Download } from "lucide-react";

import { Button } from "@/parts/Button";
import { csv, saveFile } from "@/lib/download";

export const isoDay = (startS: number): string => new Date(startS * 1000).toISOString().slice(0, 10);

export function CsvButton({ filename, heads, rows }: { filename: string; heads: string[]; rows: () => (string | number)[][] }) {
  return (
    <Button size="sm" onClick={() => saveFile(filename, csv([heads, ...rows()]))} aria-label={`Save ${filename}`}>
      <Download size={14} /> CSV
    </Button>
  );
}
