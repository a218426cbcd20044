/** The verdict, each finding with its rows, and the way out of it. */
import { useQuery } from "@tanstack/react-query";
import { CircleAlert, CircleCheck, Info, TriangleAlert, WandSparkles } from "lucide-react";
import { useState } from "react";

import { fixPreviewQuery, reportQuery, type Finding, type Report } from "@/api/data";
import { Badge } from "@/parts/Badge";
import { Button } from "@/parts/Button";
import { Card } from "@/parts/Page";
import { Prose } from "@/parts/Prose";
import { Stat } from "@/parts/Stat";
import { ErrorBox, Loading } from "@/parts/states";
import { count, percent, plural } from "@/lib/format";

import { BaseSelect } from "./BaseSelect";
import { useBase, useDatasetPlace } from "./Dataset";
import { FixDialog } from "./FixDialog";

const SHOWN_ROWS = 8;

export function ReportTab() {
  const { fileId } = useDatasetPlace();
  const { base } = useBase();
  const report = useQuery({ ...reportQuery(fileId, base), enabled: base !== null });
  // null: closed; else the codes that are chosen at first, of "safe" those that lose nothing.
  const [fixing, setFixing] = useState<"safe" | string[] | null>(null);
  if (report.isPending) return <Loading lines={7} label="Checking the file" />;
  if (report.isError) return <ErrorBox error={report.error} retry={() => void report.refetch()} />;
  const found = report.data;
  return (
    <div className="flex flex-col gap-6">
      <Verdict report={found} onFix={() => setFixing("safe")} />
      <Figures report={found} />
      {found.findings.length > 0 && (
        <Card title={plural(found.findings.length, "finding")} className="overflow-hidden">
          <ul className="-mx-5 -mb-5 divide-y divide-line border-t border-line">
            {found.findings.map((each) => (
              <FindingRow key={each.code} finding={each} onFix={() => setFixing([each.code])} />
            ))}
          </ul>
        </Card>
      )}
      {fixing !== null && <FixDialog report={found} first={fixing} onClose={() => setFixing(null)} />}
    </div>
  );
}

function Verdict({ report, onFix }: { report: Report; onFix: () => void }) {
  const { fileId } = useDatasetPlace();
  const errors = report.findings.filter((each) => each.severity === "error").length;
  const warnings = report.findings.filter((each) => each.severity === "warning").length;
  const repairs = useQuery({ ...fixPreviewQuery(fileId, null), enabled: report.findings.some((each) => each.repairable) });
  const numSafe = repairs.data ? Object.keys(repairs.data.codes).length : 0;
  const [tone, Icon, title, text] =
    errors > 0
      ? (["bg-bad-wash text-bad", CircleAlert, `Blocked: fix ${plural(errors, "problem")} first`, "A job would refuse this file."] as const)
      : warnings > 0
        ? (["bg-warn-wash text-warn", TriangleAlert, `Ready, with ${plural(warnings, "thing")} to look at`, "A job takes this file; what is below costs quality."] as const)
        : (["bg-good-wash text-good", CircleCheck, "Ready to train", "Nothing was found that would hurt."] as const);
  return (
    <div className={`flex flex-wrap items-center gap-x-4 gap-y-3 rounded-xl border border-line px-5 py-4 ${tone}`}>
      <Icon size={22} className="shrink-0" aria-hidden />
      <div className="min-w-0 flex-1 basis-60">
        <p className="text-lg font-semibold">{title}</p>
        <p className="text-sm text-ink">{text}</p>
      </div>
      {numSafe > 0 && (
        <Button kind="primary" onClick={onFix}>
          <WandSparkles size={15} /> Fix all safe ({numSafe})
        </Button>
      )}
    </div>
  );
}

function Figures({ report }: { report: Report }) {
  const { tokens, openai_tokens: openai } = report;
  return (
    <Card title="What is in it" actions={<BaseSelect />}>
      <dl className="grid grid-cols-2 gap-x-6 gap-y-5 md:grid-cols-4">
        <Stat label="Rows" note={`${report.kind} rows`}>
          {count(report.num_rows)}
        </Stat>
        {tokens && (
          <Stat label="Tokens" note={tokens.total > 0 ? `${count(tokens.trained)} trained (${percent(tokens.trained / tokens.total)})` : undefined}>
            {count(tokens.total)}
          </Stat>
        )}
        {tokens && (
          <Stat label="Too long" note={tokens.max_tokens === null ? undefined : `limit ${count(tokens.max_tokens)} tokens`}>
            {count(tokens.truncated.length)}
          </Stat>
        )}
        {openai && (
          <Stat label="As OpenAI counts" note={`${count(openai["cl100k_base"] ?? 0)} in cl100k_base`}>
            {count(openai["o200k_base"] ?? 0)}
          </Stat>
        )}
      </dl>
    </Card>
  );
}

const SEVERITIES = {
  error: { icon: CircleAlert, color: "text-bad", word: "Error" },
  warning: { icon: TriangleAlert, color: "text-warn", word: "Warning" },
  info: { icon: Info, color: "text-faint", word: "Note" },
} as const;

function FindingRow({ finding, onFix }: { finding: Finding; onFix: () => void }) {
  const { go } = useDatasetPlace();
  const { icon: Icon, color, word } = SEVERITIES[finding.severity];
  return (
    <li className="flex gap-3.5 px-5 py-4">
      <Icon size={17} className={`mt-0.5 shrink-0 ${color}`} aria-label={word} />
      <div className="min-w-0 flex-1">
        <div className="flex flex-wrap items-center gap-x-2 gap-y-1">
          <p className="min-w-0 font-medium [overflow-wrap:anywhere]">{finding.message}</p>
          <Badge>{finding.code}</Badge>
        </div>
        <p className="mt-1 text-sm text-soft">
          <Prose text={finding.effect} />
        </p>
        <p className="mt-0.5 text-sm text-soft">
          <span className="text-faint">Fix: </span>
          <Prose text={finding.fix} />
        </p>
        {finding.rows.length > 0 && (
          <div className="mt-2 flex flex-wrap items-center gap-1.5">
            <span className="text-xs text-faint">{plural(finding.num_rows, "row")}</span>
            {finding.rows.slice(0, SHOWN_ROWS).map((row) => (
              <button
                key={row}
                type="button"
                onClick={() => go({ tab: "explore", code: finding.code, row })}
                className="num rounded-md bg-sunken px-1.5 py-0.5 text-xs hover:bg-hover"
                aria-label={`Row ${row}`}
              >
                {count(row)}
              </button>
            ))}
            {finding.num_rows > 1 && (
              <button type="button" onClick={() => go({ tab: "explore", code: finding.code })} className="text-xs font-medium text-accent hover:underline">
                See all
              </button>
            )}
          </div>
        )}
      </div>
      {finding.repairable && (
        <Button size="sm" onClick={onFix} className="self-start">
          Fix
        </Button>
      )}
    </li>
  );
}
