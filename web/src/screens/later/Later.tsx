/** The places that are kept for what the API does not have yet. */
import { ChartNoAxesCombined, FlaskConical, Gauge } from "lucide-react";
import type { ReactNode } from "react";

import { Page } from "@/parts/Page";
import { Empty } from "@/parts/states";

function Later({ title, icon, children }: { title: string; icon: ReactNode; children: ReactNode }) {
  return (
    <Page title={title}>
      <Empty icon={icon} title="Not in this version">
        {children}
      </Empty>
    </Page>
  );
}

export const Evals = () => (
  <Later title="Evals" icon={<FlaskConical size={20} />}>
    Test sets against models, with graders and a verdict. Until then the playground compares models side by side, and a
    job's samples show what each checkpoint learned.
  </Later>
);

export const Usage = () => (
  <Later title="Usage" icon={<ChartNoAxesCombined size={20} />}>
    Tokens and cost by day, model and key. Until then each job says what it trained, and <code>/metrics</code> counts
    requests.
  </Later>
);

export const Limits = () => (
  <Later title="Limits" icon={<Gauge size={20} />}>
    Requests and tokens per minute for each key. This server answers as fast as it can, and with 503 when its queue is
    full.
  </Later>
);
