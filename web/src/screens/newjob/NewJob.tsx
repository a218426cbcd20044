/** A new job on one page: what is wanted at the left, what it will take at the right. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useEffect, useMemo, useRef, useState } from "react";

import { api, ApiError, read } from "@/api/client";
import { recipeQuery, type Estimate } from "@/api/jobs";
import { filesQuery, modelsQuery } from "@/api/queries";
import { Button } from "@/parts/Button";
import { Card, Page } from "@/parts/Page";
import { SelectField, TextField, type Option } from "@/parts/fields";
import { useToast } from "@/parts/Toast";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { ago, bytes } from "@/lib/format";

import { Outlook, useEstimate } from "./Outlook";
import { bodyOf, EMPTY, formOf, HYPERS, type Form, type Hyper } from "./form";

export function NewJob() {
  const search = useSearch({ from: "/shell/jobs/new" });
  const files = useQuery(filesQuery);
  const models = useQuery(modelsQuery);
  const recipe = useQuery({ ...recipeQuery(search.from ?? ""), enabled: search.from !== undefined });
  const failed = [files, models, recipe].find((each) => each.isError);
  const above = <Link to="/jobs">Jobs</Link>;
  if (failed) {
    return (
      <Page title="New job" above={above}>
        <ErrorBox error={failed.error} retry={() => void failed.refetch()} />
      </Page>
    );
  }
  if (!files.data || !models.data || (search.from !== undefined && !recipe.data)) {
    return (
      <Page title="New job" above={above}>
        <Loading lines={8} />
      </Page>
    );
  }
  const usable = files.data.data.filter((file) => file.purpose === "fine-tune");
  if (usable.length === 0) {
    return (
      <Page title="New job" above={above}>
        <Empty
          title="There is nothing to train on yet"
          action={
            <Link to="/data" search={{ upload: true }} className="text-accent underline">
              Upload a file
            </Link>
          }
        >
          A job needs a JSONL file with at least ten examples.
        </Empty>
      </Page>
    );
  }
  const newest = models.data.data.find((model) => model.owned_by === "system");
  const start = recipe.data ? formOf(recipe.data.request) : { ...EMPTY, training_file: usable[0]?.id ?? "", model: newest?.id ?? "" };
  const given: Partial<Form> = {
    ...(search.file ? { training_file: search.file } : {}),
    ...(search.validation ? { validation_file: search.validation } : {}),
    ...(search.model ? { model: search.model } : {}),
  };
  const fileOptions = usable.map((file) => ({ value: file.id, label: `${file.filename} · ${bytes(file.bytes)} · ${ago(file.created_at)}` }));
  return (
    <Page title="New job" above={above} wide>
      <Sheet
        key={search.from ?? ""}
        start={{ ...start, ...given }}
        files={fileOptions}
        models={models.data.data.map(({ id, owned_by }) => ({ value: id, label: id, group: owned_by === "system" ? "Base models" : "Tuned models, to go on from" }))}
      />
    </Page>
  );
}

const DEBOUNCE_MS = 350;

function useSettled<Value>(value: Value): Value {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), DEBOUNCE_MS);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

// Of randomUUID() there is none on plain http.
const randomKey = (): string => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function Sheet({ start, files, models }: { start: Form; files: Option[]; models: Option[] }) {
  const [form, setForm] = useState(start);
  const set = (change: Partial<Form>) => setForm((old) => ({ ...old, ...change }));
  const body = useMemo(() => bodyOf(form), [form]);
  const settled = useSettled(body);
  const estimate = useEstimate(settled);
  const client = useQueryClient();
  const navigate = useNavigate();
  const notify = useToast();
  // Sent twice, the same form makes one job.
  const key = useRef({ of: "", key: "" });
  const create = useMutation({
    mutationFn: () => {
      const text = JSON.stringify(body);
      if (key.current.of !== text) key.current = { of: text, key: randomKey() };
      return read(api.POST("/v1/fine_tuning/jobs", { body, params: { header: { "idempotency-key": key.current.key } } }));
    },
    onSuccess: async (job) => {
      await client.invalidateQueries({ queryKey: ["jobs"] });
      await navigate({ to: "/jobs/$jobId", params: { jobId: job.id }, search: {} });
    },
    onError: (error) => notify("The job was not created", { detail: error.message, tone: "bad" }),
  });
  const refused = create.error ?? estimate.error;
  const wrong = (name: string): string | null =>
    refused instanceof ApiError && refused.param !== null && (refused.param === name || refused.param === `hyperparameters.${name}`) ? refused.message : null;
  return (
    <form
      className="grid items-start gap-6 xl:grid-cols-[minmax(0,1fr)_26rem]"
      onSubmit={(event) => {
        event.preventDefault();
        create.mutate();
      }}
    >
      <div className="flex min-w-0 flex-col gap-4">
        <Card title="What to train">
          <div className="grid gap-4 pt-1 sm:grid-cols-2">
            <SelectField label="Base model" value={form.model} options={models} error={wrong("model")} onChange={(event) => set({ model: event.target.value })} />
            <SelectField
              label="Method"
              value={form.method}
              help={form.method === "dpo" ? "Learns to prefer one of two answers." : "Learns the answers of the file."}
              options={[
                { value: "supervised", label: "Supervised" },
                { value: "dpo", label: "Preferences (DPO)" },
              ]}
              error={wrong("method")}
              onChange={(event) => set({ method: event.target.value === "dpo" ? "dpo" : "supervised" })}
            />
            <SelectField
              label="Training file"
              value={form.training_file}
              options={known(files, form.training_file)}
              error={wrong("training_file")}
              onChange={(event) => set({ training_file: event.target.value })}
            />
            <SelectField
              label="Validation file"
              value={form.validation_file}
              help="Held out; shows whether the model learns or memorises."
              options={[{ value: "", label: "none" }, ...known(files, form.validation_file)]}
              error={wrong("validation_file")}
              onChange={(event) => set({ validation_file: event.target.value })}
            />
            <TextField
              label="Suffix"
              value={form.suffix}
              maxLength={64}
              placeholder="support-tone"
              help="Stands in the tuned model's name."
              error={wrong("suffix")}
              onChange={(event) => set({ suffix: event.target.value })}
            />
            <TextField label="Seed" value={form.seed} inputMode="numeric" placeholder="random" help="The same seed gives the same job." error={wrong("seed")} onChange={(event) => set({ seed: event.target.value })} />
          </div>
        </Card>
        <Hypers form={form} set={set} found={estimate.data} wrong={wrong} />
        <Card title="Integrations">
          <div className="max-w-sm pt-1">
            <TextField label="Weights & Biases project" value={form.wandb} placeholder="none" error={wrong("integrations[0].wandb.project")} onChange={(event) => set({ wandb: event.target.value })} />
          </div>
        </Card>
      </div>
      <Outlook
        estimate={estimate}
        body={body}
        isSettled={settled === body}
        action={
          <Button type="submit" kind="primary" className="w-full" busy={create.isPending} disabled={form.training_file === "" || form.model === ""}>
            Create the job
          </Button>
        }
      />
    </form>
  );
}

/** A file that is deleted or of an earlier job stays in the list while it is chosen. */
const known = (files: Option[], chosen: string): Option[] =>
  chosen === "" || files.some((file) => file.value === chosen) ? files : [...files, { value: chosen, label: chosen }];

interface HypersProps {
  form: Form;
  set: (change: Partial<Form>) => void;
  found: Estimate | undefined;
  wrong: (name: string) => string | null;
}

function Hypers({ form, set, found, wrong }: HypersProps) {
  const shown = HYPERS.filter((hyper) => hyper.method === undefined || hyper.method === form.method);
  const advanced = shown.filter((hyper) => hyper.advanced);
  const isOpen = advanced.some((hyper) => (form.hyper[hyper.name] ?? "") !== "" || wrong(hyper.name) !== null);
  const field = (hyper: Hyper) => (
    <HyperField
      key={hyper.name}
      hyper={hyper}
      value={form.hyper[hyper.name] ?? ""}
      resolved={found?.hyperparameters[hyper.name]}
      error={wrong(hyper.name)}
      onChange={(value) => set({ hyper: { ...form.hyper, [hyper.name]: value } })}
    />
  );
  return (
    <Card title="Hyperparameters" actions={<span className="text-xs text-faint">Empty is auto</span>}>
      <div className="grid gap-4 pt-1 sm:grid-cols-3">{shown.filter((hyper) => !hyper.advanced).map(field)}</div>
      <details className="group mt-4" open={isOpen || undefined}>
        <summary className="w-fit cursor-pointer rounded text-sm font-medium text-soft hover:text-ink">What is trained, and its shape</summary>
        <div className="mt-4 grid gap-4 sm:grid-cols-3">{advanced.map(field)}</div>
      </details>
    </Card>
  );
}

function HyperField({ hyper, value, resolved, error, onChange }: { hyper: Hyper; value: string; resolved: unknown; error: string | null; onChange: (value: string) => void }) {
  const auto = resolved === undefined || resolved === null ? "auto" : `auto → ${resolved === true ? "yes" : resolved === false ? "no" : String(resolved)}`;
  if (hyper.kind === "choice" || hyper.kind === "switch") {
    const options = hyper.kind === "switch" ? [{ value: "true", label: "yes" }, { value: "false", label: "no" }] : (hyper.options ?? []).map((each) => ({ value: each, label: each }));
    return (
      <SelectField
        label={hyper.label}
        help={hyper.help}
        error={error}
        value={value}
        options={[{ value: "", label: value === "" ? auto : "auto" }, ...options]}
        onChange={(event) => onChange(event.target.value)}
      />
    );
  }
  return (
    <TextField
      label={hyper.label}
      help={hyper.help}
      error={error}
      value={value}
      inputMode={hyper.kind === "whole" ? "numeric" : "decimal"}
      placeholder={auto}
      autoComplete="off"
      onChange={(event) => onChange(event.target.value)}
    />
  );
}
