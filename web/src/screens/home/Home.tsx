/** Where one is after signing in: how to call this server, how it is, what is going on. */
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Plus } from "lucide-react";

import type { Schemas } from "@/api/client";
import { useLiveJobs } from "@/api/jobs";
import { jobsQuery, modelsQuery, sessionQuery } from "@/api/queries";
import { buttonClass } from "@/parts/Button";
import { CodeTabs, CopyButton } from "@/parts/Code";
import { Card, Page } from "@/parts/Page";
import { ErrorBox, Loading } from "@/parts/states";
import { ago } from "@/lib/format";

import { clientCode } from "./code";
import { Guide, Welcome } from "./Demo";
import { Health } from "./Health";
import { JobLine } from "./JobLine";

const SHOWN_JOBS = 5;
const SHOWN_MODELS = 5;

export function Home() {
  useLiveJobs();
  const jobs = useQuery(jobsQuery);
  const models = useQuery(modelsQuery);
  const isNew = jobs.data?.data.length === 0;
  return (
    <Page
      title="Home"
      actions={
        !isNew && (
          <Link to="/jobs/new" className={buttonClass("primary")}>
            <Plus size={15} /> New job
          </Link>
        )
      }
    >
      <div className="flex flex-col gap-5">
        {isNew && <Welcome />}
        {jobs.data && <Guide jobs={jobs.data.data} />}
        <div className="grid gap-5 lg:grid-cols-[minmax(0,1.35fr)_minmax(0,1fr)]">
          <Connect model={models.data?.data.at(-1)?.id ?? null} />
          <Health />
        </div>
        {!isNew && (
          <div className="grid gap-5 lg:grid-cols-[minmax(0,1.35fr)_minmax(0,1fr)]">
            <Card title="Jobs" actions={<Link to="/jobs" className="text-sm text-accent hover:underline">All jobs</Link>}>
              {jobs.isPending && <Loading />}
              {jobs.isError && <ErrorBox error={jobs.error} retry={() => void jobs.refetch()} />}
              <ul className="-mx-2 divide-y divide-line">
                {jobs.data?.data.slice(0, SHOWN_JOBS).map((job) => <JobLine key={job.id} job={job} />)}
              </ul>
            </Card>
            <Card title="Latest models" actions={<Link to="/models" className="text-sm text-accent hover:underline">All models</Link>}>
              {models.isPending && <Loading />}
              {models.isError && <ErrorBox error={models.error} retry={() => void models.refetch()} />}
              {models.data && <Models models={models.data.data} />}
            </Card>
          </div>
        )}
      </div>
    </Page>
  );
}

function Connect({ model }: { model: string | null }) {
  const session = useQuery(sessionQuery);
  const baseUrl = `${window.location.origin}/v1`;
  return (
    <Card title="Point your client here">
      <dl className="mb-4 flex flex-col gap-1 text-sm">
        <div className="flex min-h-8 items-center gap-3">
          <dt className="w-20 shrink-0 text-soft">Base URL</dt>
          <dd className="flex min-w-0 items-center gap-3">
            <span className="truncate font-mono text-xs">{baseUrl}</span>
            <CopyButton text={baseUrl} label="Copy the base URL" />
          </dd>
        </div>
        <div className="flex min-h-8 items-center gap-3">
          <dt className="w-20 shrink-0 text-soft">API key</dt>
          <dd className="min-w-0 truncate text-xs">
            <span className="font-mono">{session.data?.key ?? "…"}</span>
            <span className="text-faint"> · this session's; shown whole only once</span>
          </dd>
        </div>
      </dl>
      <CodeTabs codes={clientCode(baseUrl, model ?? "tunesmith-nano")} />
    </Card>
  );
}

function Models({ models }: { models: Schemas["Model"][] }) {
  const tuned = models.filter((model) => model.owned_by !== "system").reverse();
  const shown = [...tuned, ...models.filter((model) => model.owned_by === "system")].slice(0, SHOWN_MODELS);
  return (
    <ul className="-mx-2 divide-y divide-line">
      {shown.map((model) => (
        <li key={model.id}>
          <Link to="/playground" search={{ models: model.id }} className="flex items-baseline gap-4 rounded-lg px-2 py-2.5 text-sm hover:bg-hover/60">
            <span className="min-w-0 flex-1 truncate font-mono text-xs" title={model.id}>
              {model.id}
            </span>
            <span className="shrink-0 text-xs text-faint">{model.owned_by === "system" ? "base" : ago(model.created)}</span>
          </Link>
        </li>
      ))}
    </ul>
  );
}
