/** All rows of a file in a list that never ends, and the chosen one beside it. */
import { useQuery } from "@tanstack/react-query";
import clsx from "clsx";
import { Search, X } from "lucide-react";
import { useDeferredValue, useEffect, useMemo, useState } from "react";

import { reportQuery, type Finding, type Index, type Length as RowLength } from "@/api/data";
import { Badge } from "@/parts/Badge";
import { Button, IconButton, Spinner } from "@/parts/Button";
import { Select, SwitchField } from "@/parts/fields";
import { isTyping } from "@/parts/rowkeys";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { VirtualList } from "@/parts/VirtualList";
import { bytes, count, plural } from "@/lib/format";
import type { DatasetSearch } from "@/router";

import { excerpt } from "./conversation";
import { useBase, useDatasetPlace } from "./Dataset";
import { placeOf, useContents, useRows, type Filter } from "./rows";
import { RowView } from "./RowView";

const ROW_HEIGHT = 62;
// About how lines are written, in every row alike.
const OF_THE_FILE = ["crlf", "blank_lines", "byte_order_mark"];

export function Explore() {
  const { fileId, search, go } = useDatasetPlace();
  const { base } = useBase();
  const report = useQuery({ ...reportQuery(fileId, base), enabled: base !== null });
  const [text, setText] = useTyped("text");
  const [min, setMin] = useTyped("min");
  const [max, setMax] = useTyped("max");
  const [shape, setShape] = useState("");
  const [range, setRange] = useState<[number, number]>([0, 0]);
  const finding = report.data?.findings.find((each) => each.code === search.code);
  const filter = useMemo<Filter>(
    () => ({ text: search.text ?? "", shape, numbers: finding ? new Set(finding.rows) : null, length: lengthOf(search, base) }),
    [search, shape, finding, base],
  );
  const { index, places } = useRows(fileId, filter);
  const contents = useContents(fileId, index.data, places, range[0], range[1]);
  const codes = useMemo(() => codesByRow(report.data?.findings ?? []), [report.data]);
  const current = useCurrent(index.data, places);
  if (index.isPending) return <Loading lines={8} label="Reading the file" />;
  if (index.isError) return <ErrorBox error={index.error} retry={() => void index.refetch()} />;
  const all = index.data;
  return (
    <div className="flex flex-col gap-4">
      <div className="flex flex-wrap items-center gap-2">
        <div className="relative min-w-48 flex-1 sm:max-w-sm">
          <Search size={15} aria-hidden className="absolute top-1/2 left-3 -translate-y-1/2 text-faint" />
          <input
            type="search"
            aria-label="Text in rows"
            placeholder="Find text in rows"
            value={text}
            onChange={(event) => setText(event.target.value)}
            className="h-9 w-full rounded-lg border border-line-strong/60 bg-surface pr-3 pl-9 text-sm placeholder:text-faint"
          />
        </div>
        <Select
          aria-label="Finding"
          value={search.code ?? ""}
          onChange={(event) => go({ code: event.target.value })}
          className="max-w-full"
          options={[
            { value: "", label: "All findings" },
            ...(report.data?.findings ?? []).filter((each) => each.rows.length > 0).map((each) => ({ value: each.code, label: `${each.code} (${count(each.num_rows)})` })),
          ]}
        />
        <Select
          aria-label="Roles"
          value={shape}
          onChange={(event) => setShape(event.target.value)}
          className="max-w-full"
          options={[{ value: "", label: "All shapes" }, ...all.shapes.slice(0, 100).map((each) => ({ value: each, label: each }))]}
        />
        <Length min={min} max={max} onMin={setMin} onMax={setMax} hasBase={base !== null} />
        <span className="num text-sm text-faint" role="status">
          {places.length === all.num_rows ? plural(all.num_rows, "row") : `${count(places.length)} of ${plural(all.num_rows, "row")}`}
          {finding && finding.num_rows > finding.rows.length && ` (the first ${count(finding.rows.length)})`}
        </span>
        {index.isPlaceholderData && <Spinner />}
      </div>
      {places.length === 0 ? (
        <Empty title="No row passes this filter" action={<Button onClick={() => { setText(""); setMin(""); setMax(""); setShape(""); go({ code: "", text: "", min: "", max: "" }); }}>Show all rows</Button>} />
      ) : (
        <div className="grid gap-4 xl:grid-cols-[minmax(0,1fr)_minmax(24rem,0.8fr)]">
          <VirtualList
            label="Rows"
            numRows={places.length}
            rowHeight={ROW_HEIGHT}
            focus={current.at}
            onRange={(first, last) => setRange([first, last])}
            className="h-[calc(100dvh-17rem)] min-h-96 rounded-xl border border-line bg-surface"
          >
            {(at) => {
              const place = placeOf(all, places[at] ?? 0);
              const content = contents.get(place.offset);
              return (
                <RowLine
                  number={place.number}
                  size={place.length === undefined ? bytes(place.bytes) : plural(place.length, search.unit === "tokens" ? "token" : "char")}
                  shape={place.shape}
                  text={content?.text}
                  codes={codes.get(place.number)}
                  isCurrent={current.at === at}
                  onOpen={() => go({ row: place.number }, true)}
                />
              );
            }}
          </VirtualList>
          <Detail index={all} places={places} at={current.at} codes={codes} />
        </div>
      )}
    </div>
  );
}

/** What is typed goes into the URL when there is a pause in it. */
function useTyped(name: "text" | "min" | "max"): [string, (value: string) => void] {
  const { search, go } = useDatasetPlace();
  const [typed, setTyped] = useState(search[name] ?? "");
  const wanted = useDeferredValue(typed);
  useEffect(() => {
    const timer = setTimeout(() => {
      if ((search[name] ?? "") !== wanted) go({ [name]: wanted }, true);
    }, 300);
    return () => clearTimeout(timer);
  });
  return [typed, setTyped];
}

const isWhole = (text: string | undefined): text is string => text !== undefined && /^\d{1,12}$/.test(text);

/** What the URL says of the rows' length; null: nothing. */
function lengthOf({ unit, min, max }: DatasetSearch, base: string | null): RowLength | null {
  if (!isWhole(min) && !isWhole(max)) return null;
  const tokens = unit === "tokens" && base !== null;
  return {
    unit: tokens ? "tokens" : "characters",
    min_length: isWhole(min) ? Number(min) : 0,
    ...(isWhole(max) ? { max_length: Number(max) } : {}),
    ...(tokens ? { base } : {}),
  };
}

function Length({ min, max, onMin, onMax, hasBase }: { min: string; max: string; onMin: (value: string) => void; onMax: (value: string) => void; hasBase: boolean }) {
  const { search, go } = useDatasetPlace();
  const field = (label: string, placeholder: string, value: string, onChange: (value: string) => void) => (
    <input
      inputMode="numeric"
      aria-label={label}
      aria-invalid={value !== "" && !isWhole(value) ? true : undefined}
      placeholder={placeholder}
      value={value}
      onChange={(event) => onChange(event.target.value)}
      className="num h-9 w-20 rounded-lg border border-line-strong/60 bg-surface px-3 text-sm text-ink placeholder:text-faint aria-[invalid=true]:border-bad"
    />
  );
  return (
    <div role="group" aria-label="Length of rows" className="flex items-center gap-1.5 text-sm text-faint">
      {field("Shortest", "min", min, onMin)}
      <span aria-hidden>–</span>
      {field("Longest", "max", max, onMax)}
      <Select
        aria-label="Measured in"
        value={search.unit ?? "characters"}
        onChange={(event) => go({ unit: event.target.value === "characters" ? "" : event.target.value })}
        options={[{ value: "characters", label: "characters" }, ...(hasBase ? [{ value: "tokens", label: "tokens" }] : [])]}
      />
    </div>
  );
}

/** Which row the URL names, and j and k to go to others. */
function useCurrent(index: Index | undefined, places: number[]) {
  const { search, go } = useDatasetPlace();
  const at = useMemo(() => {
    if (!index || search.row === undefined) return null;
    const found = places.findIndex((place) => index.number[place] === search.row);
    return found < 0 ? null : found;
  }, [index, places, search.row]);
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (isTyping(event) || event.ctrlKey || event.metaKey || document.querySelector("[role=dialog]")) return;
      const step = event.key === "j" ? 1 : event.key === "k" ? -1 : 0;
      if (step === 0 || !index || places.length === 0) return;
      const next = Math.min(places.length - 1, Math.max(0, at === null ? 0 : at + step));
      const number = index.number[places[next] ?? 0];
      if (number !== undefined) go({ row: number }, true);
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  });
  return { at };
}

function RowLine({ number, size, shape, text, codes, isCurrent, onOpen }: { number: number; size: string; shape: string; text: string | undefined; codes: string[] | undefined; isCurrent: boolean; onOpen: () => void }) {
  const said = useMemo(() => (text === undefined ? null : excerpt(text)), [text]);
  return (
    <button
      type="button"
      onClick={onOpen}
      aria-current={isCurrent || undefined}
      className={clsx("flex size-full items-center gap-3 border-b border-line px-4 text-left focus-visible:-outline-offset-2", isCurrent ? "bg-accent-wash" : "hover:bg-hover/60")}
    >
      <span className="num w-14 shrink-0 text-xs text-faint">{count(number)}</span>
      <span className="min-w-0 flex-1">
        <span className="block truncate text-sm">{said ? said.question || "(empty)" : shape}</span>
        <span className="block truncate text-xs text-soft">{said ? said.answer || shape : "…"}</span>
      </span>
      {codes && <Badge tone="warn">{codes.length === 1 ? codes[0] : `${codes.length} findings`}</Badge>}
      <span className="num min-w-14 shrink-0 text-right text-xs text-faint max-sm:hidden">{size}</span>
    </button>
  );
}

function Detail({ index, places, at, codes }: { index: Index; places: number[]; at: number | null; codes: Map<number, string[]> }) {
  const { fileId, go } = useDatasetPlace();
  const [raw, setRaw] = useState(false);
  const place = at === null ? null : placeOf(index, places[at] ?? 0);
  const contents = useContents(fileId, index, places, at ?? 0, at ?? -1);
  if (!place) {
    return (
      <div className="rounded-xl border border-dashed border-line px-6 py-16 text-center text-sm text-faint max-xl:hidden">
        Choose a row, or press <kbd className="rounded border border-line px-1.5">j</kbd> and <kbd className="rounded border border-line px-1.5">k</kbd>.
      </div>
    );
  }
  const row = contents.get(place.offset);
  return (
    <section
      aria-label={`Row ${place.number}`}
      className="flex min-w-0 flex-col rounded-xl border border-line bg-surface max-xl:fixed max-xl:inset-x-0 max-xl:bottom-0 max-xl:z-20 max-xl:h-[70dvh] max-xl:rounded-b-none max-xl:shadow-float xl:h-[calc(100dvh-17rem)] xl:min-h-96"
    >
      <header className="flex flex-wrap items-center gap-x-3 gap-y-1 border-b border-line py-2 pr-2 pl-4 text-sm">
        <h2 className="num font-semibold">Row {count(place.number)}</h2>
        {place.line !== place.number && <span className="num text-xs text-faint">line {count(place.line)}</span>}
        {codes.get(place.number)?.map((code) => (
          <Badge key={code} tone="warn">
            {code}
          </Badge>
        ))}
        <div className="ml-auto flex items-center gap-2">
          <SwitchField label="JSON" checked={raw} onChange={setRaw} />
          <Button size="sm" onClick={() => go({ tab: "tokens" })}>
            Tokens
          </Button>
          <IconButton label="Close row" onClick={() => go({ row: undefined }, true)}>
            <X size={16} />
          </IconButton>
        </div>
      </header>
      <div className="min-h-0 flex-1 overflow-auto p-4" tabIndex={0} role="region" aria-label="Content of the row">
        {row ? <RowView row={row} raw={raw} /> : <Loading lines={4} />}
      </div>
    </section>
  );
}

function codesByRow(findings: Finding[]): Map<number, string[]> {
  const found = new Map<number, string[]>();
  for (const { code, rows, severity } of findings) {
    if (severity === "info" || OF_THE_FILE.includes(code)) continue;
    for (const row of rows) found.set(row, [...(found.get(row) ?? []), code]);
  }
  return found;
}
