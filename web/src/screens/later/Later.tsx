/** The place that is kept for what the API does not have yet. */
import { FlaskConical } from "lucide-react";

import { Page } from "@/parts/Page";
import { Empty } from "@/parts/states";

export const Evals = () => (
  <Page title="Evals">
    <Empty icon={<FlaskConical size={20} />} title="Not in this version">
      Test sets against models, with graders and a verdict. Until then the playground compares models side by side, and a
      job's samples show what each checkpoint learned.
    </Empty>
  </Page>
);
