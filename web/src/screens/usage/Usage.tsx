/** What was asked of models in the last days, and what everything cost. */
import { useQuery } from "@tanstack/react-query";
import { Link, useSearch } from "@tanstack/react-router";
import { ChartNoAxesCombined } from "lucide-react";

import { costsQuery, NUM_DAYS, projectsQuery, usageQuery, type Bucket } from "@/api/organization";
import { buttonClass } from "@/parts/Button";
import { Page } from "@/parts/Page";
import { ProjectSelect } from "@/parts/ProjectSelect";
import { Stat } from "@/parts/Stat";
import { Denied, Empty, ErrorBox, isDenied, Loading } from "@/parts/states";
import { count, dollars } from "@/lib/format";

import { CostCard } from "./CostCard";
import { TokensCard } from "./TokensCard";
import { byItem, byModel, total } from "./sums";

export function Usage() {
  const { project } = useSearch({ from: "/shell/usage" });
  const projects = useQuery(projectsQuery);
  const usage = useQuery(usageQuery(project));
  const costs = useQuery(costsQuery(project));
  const error = usage.error ?? costs.error;
  return (
    <Page
      title="Usage"
      subtitle={`The last ${NUM_DAYS} days, today included. Days begin at midnight UTC.`}
      actions={projects.data && <ProjectSelect projects={projects.data} value={project} all="All projects" />}
    >
      {isDenied(error) ? (
        <Denied title="Owners of the default project see the usage" error={error}>
          What a job has cost is at <code>/v1/tunesmith/jobs/ID/cost</code>. On the server, <code>tunesmith usage</code> shows all.
        </Denied>
      ) : error ? (
        <ErrorBox error={error} retry={() => void Promise.all([usage.refetch(), costs.refetch()])} />
      ) : usage.data && costs.data ? (
        <Shown usage={usage.data.data} costs={costs.data.data} />
      ) : (
        <Loading lines={8} />
      )}
    </Page>
  );
}

function Shown({ usage, costs }: { usage: Bucket[]; costs: Bucket[] }) {
  const models = byModel(usage);
  const items = byItem(costs);
  if (models.length === 0 && items.length === 0)
    return (
      <Empty
        icon={<ChartNoAxesCombined size={20} />}
        title={`Nothing was used in the last ${NUM_DAYS} days`}
        action={
          <Link to="/playground" search={{}} className={buttonClass("primary")}>
            Open the playground
          </Link>
        }
      >
        Every answer of a model and every trained token is counted.
      </Empty>
    );
  const all = total(models);
  const nanos = items.reduce((sum, item) => sum + item.nanos, 0);
  return (
    <div className="flex flex-col gap-5">
      <dl className="grid grid-cols-2 gap-x-6 gap-y-4 rounded-xl border border-line bg-surface px-5 py-4 sm:grid-cols-4">
        <Stat label="Requests">{count(all.requests)}</Stat>
        <Stat label="Input tokens" note={`${count(all.cached)} of them cached`}>
          {count(all.input)}
        </Stat>
        <Stat label="Output tokens">{count(all.output)}</Stat>
        <Stat label="Cost" note="training included">
          {dollars(nanos / 1e9)}
        </Stat>
      </dl>
      <TokensCard buckets={usage} models={models} />
      <CostCard buckets={costs} items={items} nanos={nanos} />
    </div>
  );
}
