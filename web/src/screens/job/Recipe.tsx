/** What decides a job, and the call that makes it again. */
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import type { Schemas } from "@/api/client";
import { recipeQuery, type JobNow } from "@/api/jobs";
import { createCodes } from "@/lib/snippets";
import { CodeTabs, CopyButton } from "@/parts/Code";
import { Card } from "@/parts/Page";
import { Pair } from "@/parts/Stat";
import { ErrorBox, Loading } from "@/parts/states";
import { bytes, count, duration } from "@/lib/format";

type Used = Schemas["UsedFile"];

export function Recipe({ now }: { now: JobNow }) {
  const recipe = useQuery(recipeQuery(now.id));
  if (recipe.isPending) return <Loading lines={8} />;
  if (recipe.isError) return <ErrorBox error={recipe.error} retry={() => void recipe.refetch()} />;
  const found = recipe.data;
  const method = String(now.job.method["type"]);
  const inner = now.job.method[method] as { hyperparameters?: Record<string, unknown> } | undefined;
  return (
    <div className="grid items-start gap-4 lg:grid-cols-2">
      <div className="flex min-w-0 flex-col gap-4">
      <Card title="Hyperparameters">
        <dl>
          {Object.entries(inner?.hyperparameters ?? {}).map(([name, value]) => (
            <Pair key={name} label={<code className="text-xs">{name}</code>}>
              {said(value)}
              {!(name in now.requested) || now.requested[name] === "auto" ? <span className="ml-2 text-xs text-faint">auto</span> : null}
            </Pair>
          ))}
          <Pair label={<code className="text-xs">seed</code>}>{now.job.seed}</Pair>
          <Pair label="Method">{method}</Pair>
        </dl>
      </Card>
      {found.plan && (
        <Card title="Decided at the start">
          <dl>
            {Object.entries(found.plan)
              .filter(([name, value]) => name !== "schema" && name !== "base_fingerprint" && value !== null)
              .map(([name, value]) => (
                <Pair key={name} label={<code className="text-xs">{name}</code>}>
                  {said(value)}
                </Pair>
              ))}
          </dl>
        </Card>
      )}
      </div>
      <div className="flex min-w-0 flex-col gap-4">
      <Card title="Made of">
        <dl>
          <Pair label="Base">{found.base}</Pair>
          {found.base_fingerprint && <Hash label="Base fingerprint" value={found.base_fingerprint} />}
          {found.start_adapter_sha256 && <Hash label="Continues the adapter" value={found.start_adapter_sha256} />}
          <FileLine label="Training file" file={found.training_file ?? null} />
          {found.validation_file && <FileLine label="Validation file" file={found.validation_file} />}
          {found.adapter_sha256 && <Hash label="Resulting adapter" value={found.adapter_sha256} />}
          <Pair label="This server">Tunesmith {found.version}</Pair>
        </dl>
      </Card>
        <Took took={found.took} />
        <Card title="Reproduce">
          <p className="mb-3 text-sm text-soft">
            The same call with the same seed, on the same base and files, makes the same job. Bit for bit on the same kind of machine.
          </p>
          <CodeTabs codes={createCodes(found.request)} />
        </Card>
      </div>
    </div>
  );
}

const said = (value: unknown): string =>
  typeof value === "number" ? (Number.isInteger(value) ? count(value) : String(Number(value.toPrecision(4)))) : Array.isArray(value) ? value.join(", ") : String(value);

function Hash({ label, value }: { label: string; value: string }) {
  return (
    <Pair label={label}>
      <span className="inline-flex items-center font-mono text-xs">
        <span title={value}>{value.slice(0, 12)}…</span>
        <CopyButton text={value} label={`Copy: ${label}`} />
      </span>
    </Pair>
  );
}

function FileLine({ label, file }: { label: string; file: Used | null }) {
  if (file === null) return <Pair label={label}>gone</Pair>;
  return (
    <>
      <Pair label={label}>
        {file.deleted ? (
          <span className="text-soft">{file.filename}, deleted</span>
        ) : (
          <Link to="/data/$fileId" params={{ fileId: file.id }} search={{}} className="text-accent hover:underline">
            {file.filename}
          </Link>
        )}
        <span className="ml-2 text-xs text-faint">{bytes(file.bytes)}</span>
      </Pair>
      <Hash label="its sha256" value={file.sha256} />
    </>
  );
}

function Took({ took }: { took: Record<string, number> }) {
  const { seconds, expected_seconds, peak_bytes, expected_peak_bytes } = took;
  if (seconds === undefined) return null;
  return (
    <Card title="What it took">
      <dl>
        <Pair label="Training">
          {duration(seconds)}
          {expected_seconds !== undefined && <span className="ml-2 text-xs text-faint">{duration(expected_seconds)} expected</span>}
        </Pair>
        {peak_bytes !== undefined && (
          <Pair label="Memory at the peak">
            {bytes(peak_bytes)}
            {expected_peak_bytes !== undefined && <span className="ml-2 text-xs text-faint">{bytes(expected_peak_bytes)} expected</span>}
          </Pair>
        )}
      </dl>
    </Card>
  );
}
