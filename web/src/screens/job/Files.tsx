/** What a job leaves: its model, its checkpoints and the table of its figures. */
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Download, MessagesSquare } from "lucide-react";

import { checkpointsQuery, type JobNow } from "@/api/jobs";
import { Badge } from "@/parts/Badge";
import { buttonClass } from "@/parts/Button";
import { CopyButton } from "@/parts/Code";
import { Card } from "@/parts/Page";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { count } from "@/lib/format";

export function Files({ now }: { now: JobNow }) {
  const checkpoints = useQuery(checkpointsQuery(now.id));
  const { job } = now;
  if (checkpoints.isPending) return <Loading lines={4} />;
  if (checkpoints.isError) return <ErrorBox error={checkpoints.error} retry={() => void checkpoints.refetch()} />;
  const kept = checkpoints.data.data;
  if (kept.length === 0 && job.result_files.length === 0) {
    return <Empty title="No files yet">The model, its checkpoints and the table of figures are published when the job has succeeded.</Empty>;
  }
  const measured = kept.map((each) => each.metrics["full_valid_loss"] ?? Infinity);
  const best = Math.min(...measured);
  return (
    <div className="flex flex-col gap-4">
      {kept.length > 0 && (
        <Card title="Models">
          <ul>
            {kept.map((each, index) => (
              <li key={each.id} className="flex flex-wrap items-center gap-x-4 gap-y-2 border-b border-line py-3 last:border-0">
                <div className="min-w-0 flex-1 basis-72">
                  <p className="flex items-center font-mono text-xs [overflow-wrap:anywhere]">
                    {each.fine_tuned_model_checkpoint}
                    <CopyButton text={each.fine_tuned_model_checkpoint} label="Copy the model's name" />
                  </p>
                  <p className="num mt-0.5 flex flex-wrap items-center gap-x-3 gap-y-1 text-xs text-soft">
                    <span>step {count(each.step_number)}</span>
                    {Object.entries(each.metrics)
                      .filter(([name]) => name === "train_loss" || name === "full_valid_loss" || name === "full_valid_mean_token_accuracy")
                      .map(([name, value]) => (
                        <span key={name}>
                          {name.replaceAll("_", " ")} {value.toFixed(3)}
                        </span>
                      ))}
                    {index === 0 && <Badge>final</Badge>}
                    {each.metrics["full_valid_loss"] === best && <Badge tone="good">lowest validation loss</Badge>}
                  </p>
                </div>
                <Link to="/playground" search={{ models: `${job.model},${each.fine_tuned_model_checkpoint}` }} className={buttonClass("plain", "sm")}>
                  <MessagesSquare size={13} /> Try it
                </Link>
                <a href={`/v1/tunesmith/models/${encodeURIComponent(each.fine_tuned_model_checkpoint)}/files`} download className={buttonClass("plain", "sm")}>
                  <Download size={13} /> Download
                </a>
              </li>
            ))}
          </ul>
          <p className="mt-3 text-xs text-faint">
            A zip with the adapter in PEFT's format (safetensors and its configuration). <code>tunesmith export</code> writes merged models and GGUF.
          </p>
        </Card>
      )}
      {job.result_files.map((file) => (
        <Card key={file} title="Figures">
          <div className="flex flex-wrap items-center justify-between gap-3">
            <p className="text-sm text-soft">Step by step: losses and token accuracies, as CSV.</p>
            <a href={`/v1/files/${encodeURIComponent(file)}/content?format=csv`} download={`${job.id}.csv`} className={buttonClass("plain", "sm")}>
              <Download size={13} /> Download
            </a>
          </div>
        </Card>
      ))}
    </div>
  );
}
