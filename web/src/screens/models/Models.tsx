/** Every model by what it came out of: base, job, model, its checkpoints, what was trained on from it. */
import { useQueries, useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import clsx from "clsx";
import { Boxes, Flag, Layers, Plus, Sparkles } from "lucide-react";
import { useMemo, useState } from "react";

import { checkpointsQuery, useLiveJobs } from "@/api/jobs";
import { allJobsQuery } from "@/api/models";
import { modelsQuery, statusQuery } from "@/api/queries";
import { Badge } from "@/parts/Badge";
import { buttonClass } from "@/parts/Button";
import { Page } from "@/parts/Page";
import { TextField } from "@/parts/fields";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { ago, count, plural, when } from "@/lib/format";

import { Detail } from "./Detail";
import { jobsWithCheckpoints, treeOf, type Kind, type Node } from "./tree";

// Each takes a request; older jobs' checkpoints are shown beneath their base.
const MAX_JOBS_ASKED = 100;

export function Models() {
  const models = useQuery(modelsQuery);
  const jobs = useQuery(allJobsQuery);
  useLiveJobs();
  const asked = useMemo(() => jobsWithCheckpoints(models.data?.data ?? [], jobs.data ?? []).slice(0, MAX_JOBS_ASKED), [models.data, jobs.data]);
  const checkpoints = useQueries({
    queries: asked.map((job) => checkpointsQuery(job.id)),
    combine: (results) => ({ isPending: results.some((each) => each.isPending), all: results.flatMap((each) => each.data?.data ?? []) }),
  });
  const roots = useMemo(() => treeOf(models.data?.data ?? [], jobs.data ?? [], checkpoints.all), [models.data, jobs.data, checkpoints.all]);
  const [text, setText] = useState("");
  const shown = useMemo(() => matching(roots, text.trim().toLowerCase()), [roots, text]);
  const numTuned = (models.data?.data ?? []).filter((model) => model.owned_by !== "system").length;
  const failed = models.error ?? jobs.error;
  return (
    <Page
      title="Models"
      subtitle="What answers on this server, and what each came out of."
      actions={
        <Link to="/jobs/new" search={{}} className={buttonClass("primary")}>
          <Plus size={15} /> New job
        </Link>
      }
    >
      {failed ? (
        <ErrorBox error={failed} retry={() => void Promise.all([models.refetch(), jobs.refetch()])} />
      ) : models.isPending || jobs.isPending || checkpoints.isPending ? (
        <Loading lines={7} />
      ) : roots.length === 0 ? (
        <Empty icon={<Boxes size={20} />} title="No models">
          <code>tunesmith base add</code> on the server gives it a base to train on and to ask.
        </Empty>
      ) : (
        <>
          {numTuned > 8 && (
            <div className="mb-4 max-w-sm">
              <TextField label="Find" value={text} placeholder="part of a name" onChange={(event) => setText(event.target.value)} />
            </div>
          )}
          <div className="flex flex-col gap-4">
            {shown.map((root) => (
              <section key={root.name} className="rounded-xl border border-line bg-surface p-2" aria-label={root.name}>
                <ul>
                  <Branch node={root} />
                </ul>
                {root.children.length === 0 && text === "" && (
                  <p className="px-3 pt-1 pb-2 pl-11 text-sm text-faint">Nothing is tuned on it yet.</p>
                )}
              </section>
            ))}
          </div>
          {shown.length === 0 && <Empty title="No model is called that" />}
        </>
      )}
    </Page>
  );
}

/** The branches that lead to a name with this text in it. */
function matching(nodes: Node[], text: string): Node[] {
  if (text === "") return nodes;
  return nodes.flatMap((node) => {
    const children = matching(node.children, text);
    const own = node.name.toLowerCase().includes(text) || node.job?.id.toLowerCase().includes(text);
    return own || children.length > 0 ? [{ ...node, children }] : [];
  });
}

const ICONS: Record<Kind, typeof Boxes> = { base: Layers, tuned: Sparkles, checkpoint: Flag };

function Branch({ node }: { node: Node }) {
  const { model: open } = useSearch({ from: "/shell/models" });
  const navigate = useNavigate();
  const isOpen = open === node.name;
  const flip = () => void navigate({ to: "/models", search: isOpen ? {} : { model: node.name }, replace: true, resetScroll: false });
  return (
    <li className="min-w-0">
      <Row node={node} isOpen={isOpen} onFlip={flip} />
      {isOpen && <Detail node={node} />}
      {node.children.length > 0 && (
        <ul className="ml-4 border-l border-line pl-2 sm:ml-5 sm:pl-3" aria-label={`Made of ${node.name}`}>
          {node.children.map((child) => (
            <Branch key={child.name} node={child} />
          ))}
        </ul>
      )}
    </li>
  );
}

function Row({ node, isOpen, onFlip }: { node: Node; isOpen: boolean; onFlip: () => void }) {
  const Icon = ICONS[node.kind];
  const loss = node.checkpoint?.metrics["full_valid_loss"] ?? node.checkpoint?.metrics["train_loss"];
  const numTuned = countTuned(node);
  return (
    <button
      type="button"
      disabled={node.model === null}
      aria-expanded={isOpen}
      onClick={onFlip}
      className={clsx(
        "flex w-full min-w-0 items-start gap-3 rounded-lg px-3 py-2 text-left text-sm transition-colors",
        isOpen ? "bg-accent-wash" : "enabled:hover:bg-hover/60",
      )}
    >
      <Icon size={15} aria-hidden className={clsx("mt-1 shrink-0", node.kind === "base" ? "text-accent" : "text-faint")} />
      <span className="min-w-0 flex-1">
        <span className={clsx("font-mono text-xs leading-6 [overflow-wrap:anywhere]", node.model === null && "text-faint line-through")}>{node.name}</span>
        <span className="num flex flex-wrap gap-x-3 text-xs text-faint">
          {node.kind === "base" && numTuned > 0 && <span>{plural(numTuned, "model")} tuned on it</span>}
          {node.kind === "tuned" && node.job && node.job.trained_tokens !== null && <span>{count(node.job.trained_tokens)} tokens trained</span>}
          {node.checkpoint && <span>step {count(node.checkpoint.step_number)}</span>}
          {node.kind === "checkpoint" && loss !== undefined && <span>loss {loss.toFixed(3)}</span>}
          {node.model && node.kind !== "base" && <span title={when(node.model.created)}>{ago(node.model.created)}</span>}
        </span>
      </span>
      <span className="mt-0.5 shrink-0">
        <Presence node={node} />
      </span>
    </button>
  );
}

function countTuned(node: Node): number {
  return node.children.reduce((sum, child) => sum + countTuned(child) + (child.kind === "tuned" && child.model ? 1 : 0), 0);
}

function Presence({ node }: { node: Node }) {
  const status = useQuery(statusQuery);
  if (node.model === null) return <Badge>deleted</Badge>;
  if (!status.data) return null;
  if (status.data.engine.state === "unreachable") return <Badge tone="warn">engine away</Badge>;
  return status.data.engine.loaded.includes(node.name) ? (
    <Badge tone="good" dot>
      loaded
    </Badge>
  ) : (
    <span title="It is loaded when it is asked the first time.">
      <Badge>cold</Badge>
    </span>
  );
}
