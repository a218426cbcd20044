/** What stands in the form of a new job, and the request that it makes. */

export type Method = "supervised" | "dpo";

export interface Hyper {
  name: string;
  label: string;
  help: string;
  kind: "whole" | "number" | "choice" | "switch";
  options?: string[];
  method?: Method;
  advanced?: boolean;
}

/** In the API's names; the server holds the ranges and says what is wrong with a value. */
export const HYPERS: Hyper[] = [
  { name: "n_epochs", label: "Epochs", help: "How often each example is seen.", kind: "whole" },
  { name: "batch_size", label: "Batch size", help: "Examples of one step.", kind: "whole" },
  { name: "learning_rate_multiplier", label: "Learning rate multiplier", help: "Of a rate that suits the base.", kind: "number" },
  { name: "beta", label: "Beta", help: "How closely the answers stay with the start's.", kind: "number", method: "dpo" },
  { name: "finetuning_type", label: "Trained", help: "A low-rank adapter, DoRA, or every weight.", kind: "choice", options: ["lora", "dora", "full"], advanced: true },
  { name: "lora_rank", label: "Rank", help: "Size of the adapter.", kind: "whole", advanced: true },
  { name: "lora_alpha", label: "Alpha", help: "Strength of the adapter.", kind: "number", advanced: true },
  { name: "lora_dropout", label: "Dropout", help: "Share left out at random.", kind: "number", advanced: true },
  { name: "lora_targets", label: "Layers", help: "Which linear layers get an adapter.", kind: "choice", options: ["all", "attention", "mlp"], advanced: true },
  { name: "lora_rslora", label: "Rank-stabilised", help: "Scales by the square root of the rank.", kind: "switch", advanced: true },
];

export interface Form {
  model: string;
  training_file: string;
  validation_file: string;
  method: Method;
  suffix: string;
  seed: string;
  wandb: string;
  /** Empty: auto. */
  hyper: Record<string, string>;
}

export const EMPTY: Form = { model: "", training_file: "", validation_file: "", method: "supervised", suffix: "", seed: "", wandb: "", hyper: {} };

/** The body of the request. A text that is no number goes as it is: the server says what is wrong. */
export function bodyOf(form: Form) {
  const hyperparameters: Record<string, unknown> = {};
  for (const { name, kind, method } of HYPERS) {
    const text = form.hyper[name]?.trim() ?? "";
    if (text === "" || (method !== undefined && method !== form.method)) continue;
    if (kind === "switch") hyperparameters[name] = text === "true";
    else hyperparameters[name] = kind === "choice" ? text : numberOr(text);
  }
  const given = Object.keys(hyperparameters).length > 0 ? { hyperparameters } : {};
  return {
    model: form.model,
    training_file: form.training_file,
    ...(form.validation_file ? { validation_file: form.validation_file } : {}),
    method: { type: form.method, [form.method]: given },
    ...(form.suffix ? { suffix: form.suffix } : {}),
    ...(form.seed.trim() ? { seed: numberOr(form.seed.trim()) as number } : {}),
    ...(form.wandb.trim() ? { integrations: [{ type: "wandb", wandb: { project: form.wandb.trim() } }] } : {}),
  };
}

export type Body = ReturnType<typeof bodyOf>;

const numberOr = (text: string): number | string => (/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : text);

/** The form that would make a request again. */
export function formOf(request: Record<string, unknown>): Form {
  const text = (name: string) => (request[name] === undefined ? "" : String(request[name]));
  const method = (request["method"] ?? {}) as Record<string, unknown>;
  const type = method["type"] === "dpo" ? "dpo" : "supervised";
  const inner = (method[type] ?? {}) as { hyperparameters?: Record<string, unknown> };
  const hyper: Record<string, string> = {};
  for (const [name, value] of Object.entries(inner.hyperparameters ?? {})) {
    if (value !== "auto" && value !== null) hyper[name] = String(value);
  }
  const integrations = (request["integrations"] ?? []) as { wandb?: { project?: string } }[];
  return {
    model: text("model"),
    training_file: text("training_file"),
    validation_file: text("validation_file"),
    method: type,
    suffix: text("suffix"),
    seed: text("seed"),
    wandb: integrations[0]?.wandb?.project ?? "",
    hyper,
  };
}
