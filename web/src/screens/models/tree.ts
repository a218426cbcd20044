/** Which model came out of which: bases, the models tuned on them, their checkpoints, and on. */
import type { Schemas } from "@/api/client";

export type Job = Schemas["Job"];
export type Model = Schemas["Model"];
export type Checkpoint = Schemas["Checkpoint"];
export type Kind = "base" | "tuned" | "checkpoint";

export interface Node {
  name: string;
  kind: Kind;
  /** Null: it was deleted, but others that came out of it are there. */
  model: Model | null;
  /** The job that made it; null for bases. */
  job: Job | null;
  checkpoint: Checkpoint | null;
  children: Node[];
}

const CHECKPOINT = /:ckpt-step-\d+$/;

export const kindOf = (model: Model): Kind => (model.owned_by === "system" ? "base" : CHECKPOINT.test(model.id) ? "checkpoint" : "tuned");

/** Jobs that may have checkpoints among the models: names say base, organisation and suffix. */
export function jobsWithCheckpoints(models: Model[], jobs: Job[]): Job[] {
  const stem = (name: string) => name.split(":").slice(0, 4).join(":");
  const stems = new Set(models.filter((model) => CHECKPOINT.test(model.id)).map((model) => stem(model.id)));
  return jobs.filter((job) => job.fine_tuned_model !== null && stems.has(stem(job.fine_tuned_model)));
}

export function treeOf(models: Model[], jobs: Job[], checkpoints: Checkpoint[]): Node[] {
  return new Forest(models, jobs, checkpoints).roots;
}

class Forest {
  readonly roots: Node[] = [];
  private readonly nodes = new Map<string, Node>();
  private readonly models: Map<string, Model>;
  private readonly jobs: Map<string, Job>;
  private readonly made: Map<string, Job>;
  private readonly checkpoints: Map<string, Checkpoint>;

  constructor(models: Model[], jobs: Job[], checkpoints: Checkpoint[]) {
    this.models = new Map(models.map((model) => [model.id, model]));
    this.jobs = new Map(jobs.map((job) => [job.id, job]));
    this.made = new Map(jobs.flatMap((job) => (job.fine_tuned_model === null ? [] : [[job.fine_tuned_model, job] as const])));
    // The last checkpoint of a job is its model.
    this.checkpoints = new Map(checkpoints.map((each) => [each.fine_tuned_model_checkpoint, each]));
    for (const model of models) this.node(model.id);
    for (const node of this.nodes.values()) node.children.sort(order);
  }

  private node(name: string): Node {
    const known = this.nodes.get(name);
    if (known) return known;
    const model = this.models.get(name) ?? null;
    const checkpoint = this.checkpoints.get(name) ?? null;
    const job = this.made.get(name) ?? this.jobs.get(checkpoint?.fine_tuning_job_id ?? "") ?? null;
    const kind = model !== null ? kindOf(model) : job === null ? "base" : CHECKPOINT.test(name) ? "checkpoint" : "tuned";
    const node: Node = { name, kind, model, job, checkpoint, children: [] };
    this.nodes.set(name, node);
    const parent = this.parentName(node);
    if (parent === null) this.roots.push(node);
    else this.node(parent).children.push(node);
    return node;
  }

  private parentName({ name, kind, job }: Node): string | null {
    if (kind === "base") return null;
    if (kind === "checkpoint" && job?.fine_tuned_model) return job.fine_tuned_model;
    // "ft:BASE:ORGANISATION:SUFFIX:ID", where the job is not told.
    return job?.model ?? name.split(":")[1] ?? name;
  }
}

/** Checkpoints by their steps, then models, the newest first. */
function order(a: Node, b: Node): number {
  if (a.kind !== b.kind) return a.kind === "checkpoint" ? -1 : 1;
  if (a.kind === "checkpoint") return (a.checkpoint?.step_number ?? 0) - (b.checkpoint?.step_number ?? 0);
  return (b.model?.created ?? 0) - (a.model?.created ?? 0);
}
