import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import type { Schemas } from "@/api/client";
import { ENDED, jobQuery, metricsQuery } from "@/api/jobs";
import { StatusBadge } from "@/parts/Badge";
import { Sparkline } from "@/parts/Sparkline";
import { ago, percent } from "@/lib/format";

// More points than this cannot be told apart in the width of a word.
const MAX_POINTS = 96;

/** A job in a line: its name, how far it is, and the course of its loss. */
export function JobLine({ job }: { job: Schemas["Job"] }) {
  const isOpen = !ENDED.includes(job.status);
  const metrics = useQuery(metricsQuery(job.id));
  const now = useQuery({ ...jobQuery(job.id), enabled: isOpen });
  const losses = (metrics.data?.figures["train_loss"] ?? []).filter((loss) => loss !== null);
  const every = Math.ceil(losses.length / MAX_POINTS);
  const total = now.data?.total_steps ?? null;
  return (
    <li>
      <Link to="/jobs/$jobId" params={{ jobId: job.id }} className="flex items-center gap-4 rounded-lg px-2 py-2.5 text-sm hover:bg-hover/60">
        <span className="min-w-0 flex-1">
          <span className="block truncate font-medium">{job.user_provided_suffix ?? job.model}</span>
          <span className="block truncate text-xs text-faint">
            {job.model} · {ago(job.created_at)}
          </span>
        </span>
        <Sparkline values={losses.filter((_, place) => place % every === 0)} label={`Training loss of ${job.id}`} />
        <span className="flex w-28 shrink-0 flex-col items-end gap-0.5">
          <StatusBadge status={job.status} />
          {isOpen && now.data && total !== null && <span className="num text-xs text-faint">{percent(now.data.step / total)}</span>}
        </span>
      </Link>
    </li>
  );
}
