/** One model: where it comes from, what made it, and what can be done with it. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { ChevronRight, Download, MessagesSquare, Repeat, Trash2 } from "lucide-react";
import { Fragment, useState, type ReactNode } from "react";

import { deleteModel, filesOf } from "@/api/models";
import { fileQuery } from "@/api/queries";
import { Button, buttonClass } from "@/parts/Button";
import { CopyButton } from "@/parts/Code";
import { Confirm } from "@/parts/Dialog";
import { Pair } from "@/parts/Stat";
import { useToast } from "@/parts/Toast";
import { ErrorBox } from "@/parts/states";
import { count, when } from "@/lib/format";

import type { Job, Model, Node } from "./tree";

export function Detail({ node }: { node: Node }) {
  const { model, job, checkpoint } = node;
  if (model === null) return null;
  return (
    <div className="mb-2 ml-3 border-l-2 border-accent py-2 pr-2 pl-4 sm:ml-4 sm:pl-6">
      {job && <Lineage node={node} job={job} />}
      <Actions node={node} model={model} />
      <dl className="mt-3 max-w-2xl">
        <Pair label="Name">
          <span className="inline-flex items-center gap-1 font-mono text-xs">
            {node.name}
            <CopyButton text={node.name} label="Copy the model's name" />
          </span>
        </Pair>
        <Pair label="Created">{when(model.created)}</Pair>
        <Pair label="Owner">{model.owned_by}</Pair>
        {checkpoint && <Figures checkpoint={checkpoint} />}
        {job && <Training job={job} />}
      </dl>
    </div>
  );
}

/** Base, data, job, model: each a link to its screen. */
function Lineage({ node, job }: { node: Node; job: Job }) {
  const parts: ReactNode[] = [
    <Link key="start" to="/models" search={{ model: job.model }} className="font-mono hover:underline">
      {job.model}
    </Link>,
    <FileLink key="file" fileId={job.training_file} />,
    <Link key="job" to="/jobs/$jobId" params={{ jobId: job.id }} search={{}} className="hover:underline">
      job {job.user_provided_suffix ?? job.id}
    </Link>,
    <span key="self" className="font-mono text-ink">
      {node.checkpoint ? `step ${count(node.checkpoint.step_number)}` : "this model"}
    </span>,
  ];
  return (
    <nav aria-label="Lineage" className="mb-3 flex min-w-0 flex-wrap items-center gap-x-1.5 gap-y-1 text-xs text-soft [overflow-wrap:anywhere]">
      {parts.map((part, place) => (
        <Fragment key={place}>
          {place > 0 && <ChevronRight size={12} aria-hidden className="shrink-0 text-faint" />}
          {part}
        </Fragment>
      ))}
    </nav>
  );
}

function FileLink({ fileId }: { fileId: string }) {
  const file = useQuery({ ...fileQuery(fileId), retry: false });
  if (file.isError) return <span title={fileId}>a file that was deleted</span>;
  return (
    <Link to="/data/$fileId" params={{ fileId }} search={{}} className="hover:underline">
      {file.data?.filename ?? fileId}
    </Link>
  );
}

function Actions({ node, model }: { node: Node; model: Model }) {
  const [asks, setAsks] = useState(false);
  const isBase = node.kind === "base";
  const start = node.job?.model;
  return (
    <div className="flex flex-wrap gap-2">
      <Link to="/playground" search={{ models: start === undefined ? node.name : `${start},${node.name}` }} className={buttonClass("plain", "sm")}>
        <MessagesSquare size={13} /> Open in playground
      </Link>
      <Link to="/jobs/new" search={{ model: node.name }} className={buttonClass("plain", "sm")}>
        <Repeat size={13} /> {isBase ? "Tune it" : "Continue training"}
      </Link>
      {!isBase && (
        <>
          <a href={filesOf(node.name)} download className={buttonClass("plain", "sm")}>
            <Download size={13} /> Download
          </a>
          <Button size="sm" kind="danger" onClick={() => setAsks(true)}>
            <Trash2 size={13} /> Delete
          </Button>
          <Deletion model={model} node={node} open={asks} onOpenChange={setAsks} />
        </>
      )}
    </div>
  );
}

function Deletion({ node, model, open, onOpenChange }: { node: Node; model: Model; open: boolean; onOpenChange: (open: boolean) => void }) {
  const queries = useQueryClient();
  const navigate = useNavigate();
  const notify = useToast();
  const remove = useMutation({
    mutationFn: () => deleteModel(model.id),
    onSuccess: async () => {
      onOpenChange(false);
      notify("The model is deleted", { detail: model.id });
      await queries.invalidateQueries({ queryKey: ["models"] });
      await navigate({ to: "/models", search: {}, replace: true });
    },
  });
  const numBeneath = node.children.filter((child) => child.model !== null).length;
  return (
    <Confirm
      open={open}
      onOpenChange={(next) => {
        remove.reset();
        onOpenChange(next);
      }}
      title="Delete this model?"
      action="Delete for good"
      busy={remove.isPending}
      onConfirm={() => remove.mutate()}
    >
      <p>
        <span className="font-mono text-xs text-ink">{model.id}</span> stops answering at once, and its weights cannot be brought back.
        {numBeneath > 0 && " Its checkpoints, and models trained on from it, stay."} The job, its data and its figures stay, too, so
        it can be trained again.
      </p>
      {remove.isError && (
        <div className="mt-4">
          <ErrorBox error={remove.error} />
        </div>
      )}
    </Confirm>
  );
}

const FIGURES: [string, string][] = [
  ["train_loss", "Training loss"],
  ["full_valid_loss", "Validation loss"],
  ["full_valid_mean_token_accuracy", "Validation accuracy"],
];

function Figures({ checkpoint }: { checkpoint: NonNullable<Node["checkpoint"]> }) {
  return FIGURES.map(([name, label]) => {
    const value = checkpoint.metrics[name];
    return (
      value !== undefined && (
        <Pair key={name} label={label}>
          {value.toFixed(4)}
        </Pair>
      )
    );
  });
}

function Training({ job }: { job: Job }) {
  const given = Object.entries(job.hyperparameters ?? {});
  return (
    <>
      <Pair label="Method">{String(job.method["type"])}</Pair>
      {job.trained_tokens !== null && <Pair label="Trained tokens">{count(job.trained_tokens)}</Pair>}
      <Pair label="Seed">{job.seed}</Pair>
      {job.validation_file !== null && (
        <Pair label="Validation file">
          <FileLink fileId={job.validation_file} />
        </Pair>
      )}
      {given.map(([name, value]) => (
        <Pair key={name} label={name.replaceAll("_", " ")}>
          {String(value)}
        </Pair>
      ))}
    </>
  );
}
