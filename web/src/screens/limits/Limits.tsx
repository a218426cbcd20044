/** How much a project may ask of each base, and spend. Owners of the default project change it. */
import { useQuery } from "@tanstack/react-query";
import { useSearch } from "@tanstack/react-router";
import { Gauge } from "lucide-react";
import type { ReactNode } from "react";

import { limitsQuery, ownLimitsQuery, projectsQuery, spendingQuery } from "@/api/organization";
import { CodeBlock } from "@/parts/Code";
import { Card, Page } from "@/parts/Page";
import { ProjectSelect } from "@/parts/ProjectSelect";
import { Empty, ErrorBox, isDenied, Loading } from "@/parts/states";

import { FIELDS, RateLimits } from "./RateLimits";
import { SpendLimits } from "./SpendLimits";

export function Limits() {
  const { project } = useSearch({ from: "/shell/limits" });
  const projects = useQuery(projectsQuery);
  const shown = project ?? projects.data?.[0]?.id;
  return (
    <Page
      title="Limits"
      subtitle="How much a project may ask of each base, and spend. Models tuned on a base draw on the base's limits."
      actions={projects.data && <ProjectSelect projects={projects.data} value={shown} />}
    >
      {projects.isPending ? (
        <Loading lines={6} />
      ) : isDenied(projects.error) ? (
        <Own />
      ) : projects.isError ? (
        <ErrorBox error={projects.error} retry={() => void projects.refetch()} />
      ) : (
        shown !== undefined && <OfProject projectId={shown} />
      )}
    </Page>
  );
}

/** For those who may not change limits: what holds for them. */
function Own() {
  const own = useQuery(ownLimitsQuery);
  if (own.isPending) return <Loading lines={6} />;
  if (own.isError) return <ErrorBox error={own.error} retry={() => void own.refetch()} />;
  return (
    <>
      <p className="mb-5 text-sm text-soft">
        These hold for your project, and for the key that you are signed in with. Owners of the default project can change them.
      </p>
      <Parts
        rates={own.data.rate_limits.length === 0 ? <NoBase /> : <RateLimits limits={own.data.rate_limits} />}
        spending={<SpendLimits limits={own.data.spend_limits} />}
      />
      <div className="mt-6">
        <Meanings />
      </div>
    </>
  );
}

function OfProject({ projectId }: { projectId: string }) {
  const limits = useQuery(limitsQuery(projectId));
  const spending = useQuery(spendingQuery(projectId));
  return (
    <>
      <Parts
        rates={
          limits.isPending ? (
            <Loading />
          ) : limits.isError ? (
            <ErrorBox error={limits.error} retry={() => void limits.refetch()} />
          ) : limits.data.length === 0 ? (
            <NoBase />
          ) : (
            <RateLimits limits={limits.data} projectId={projectId} />
          )
        }
        spending={
          spending.isPending ? (
            <Loading />
          ) : spending.isError ? (
            <ErrorBox error={spending.error} retry={() => void spending.refetch()} />
          ) : (
            <SpendLimits limits={spending.data} projectId={projectId} />
          )
        }
      />
      <div className="mt-6 grid gap-5 lg:grid-cols-2">
        <Meanings />
        <Card title="On the server">
          <p className="mb-3 text-sm text-soft">
            The same from the command line, where <code>default</code> also goes back to the settings:
          </p>
          <CodeBlock label="Set a limit" code={`tunesmith limits set \\\n  ${limits.data?.[0]?.model ?? "BASE"} \\\n  --project ${projectId} \\\n  --requests-per-minute 60`} />
          <div className="mt-3">
            <CodeBlock label="Set a spend limit" code={`tunesmith limits spend \\\n  ${projectId} 25.00`} />
          </div>
        </Card>
      </div>
    </>
  );
}

function Parts({ rates, spending }: { rates: ReactNode; spending: ReactNode }) {
  return (
    <>
      <h2 className="mb-3 text-sm font-semibold">Rates, by base</h2>
      {rates}
      <h2 className="mt-6 mb-3 text-sm font-semibold">Spending in this month</h2>
      {spending}
    </>
  );
}

function NoBase() {
  return (
    <Empty icon={<Gauge size={20} />} title="No base to limit">
      This project may use none of the server's bases.
    </Empty>
  );
}

function Meanings() {
  return (
    <Card title="What they mean">
      <dl className="flex flex-col gap-3 text-sm">
        {FIELDS.map(({ field, label, meaning }) => (
          <div key={field}>
            <dt className="font-medium">{label}</dt>
            <dd className="text-soft">{meaning}</dd>
          </div>
        ))}
        <div>
          <dt className="font-medium">Spending</dt>
          <dd className="text-soft">At the server's prices, by calendar month of UTC. What unfinished jobs are still expected to cost is reserved.</dd>
        </div>
      </dl>
      <p className="mt-4 text-sm text-soft">
        A request beyond a rate is refused with 429 and says how long to wait; the official clients wait, and try again. One beyond the money is refused for good.
      </p>
    </Card>
  );
}
