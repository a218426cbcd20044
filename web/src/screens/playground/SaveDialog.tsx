/** Keeps a question with its right answer: as a test case, or as a row to train on. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";

import { ApiError, refusal, upload, type Schemas } from "@/api/client";
import { filesQuery } from "@/api/queries";
import { Button } from "@/parts/Button";
import { Dialog } from "@/parts/Dialog";
import { useToast } from "@/parts/Toast";
import { SelectField, SwitchField, TextArea, TextField } from "@/parts/fields";
import { ErrorBox } from "@/parts/states";
import { bytes } from "@/lib/format";

import type { Answer, Turn } from "./ask";

export interface Saving {
  kind: "test" | "row";
  answer: Answer;
}

type Shape = "supervised" | "dpo";

// A file is read into the page to append to it.
const MAX_BYTES = 50_000_000;
const PURPOSES = { test: "evals", row: "fine-tune" } as const;

export function SaveDialog({ saving: { kind, answer }, onClose }: { saving: Saving; onClose: () => void }) {
  const files = useQuery(filesQuery);
  const fitting = (files.data?.data ?? []).filter((file) => file.purpose === PURPOSES[kind] && file.bytes <= MAX_BYTES);
  const [chosen, setChosen] = useState<string>("");
  const source = fitting.find((file) => file.id === chosen);
  const [typedName, setTypedName] = useState<string | null>(null);
  const name = typedName ?? (source ? nextName(source.filename) : kind === "test" ? "test-cases.jsonl" : "corrected.jsonl");
  const [right, setRight] = useState(answer.text);
  const [shape, setShape] = useState<Shape>("supervised");
  const [withExamples, setWithExamples] = useState(kind === "test");
  const numExamples = answer.turns.filter((turn) => turn.role === "assistant").length;
  const save = useSave(kind, onClose);
  const turns = withExamples ? answer.turns : withoutExamples(answer.turns);
  const line = kind === "test" ? testCase(turns, right) : shape === "dpo" ? pair(turns, answer.text, right) : example(turns, right);
  const isSame = kind === "row" && shape === "dpo" && right.trim() === answer.text.trim();
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      title={kind === "test" ? "Save as test case" : "Add the corrected answer to data"}
      description="Files on the server never change: this writes a new file, and the one before stays as it is."
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="primary" busy={save.isPending} disabled={name.trim() === "" || right.trim() === "" || isSame} onClick={() => save.mutate({ source, name: name.trim(), line })}>
            Save as new file
          </Button>
        </>
      }
    >
      <div className="flex flex-col gap-4">
        <TextArea
          label={kind === "test" ? "Expected answer" : "Right answer"}
          rows={5}
          value={right}
          error={isSame ? "A pair needs an answer that is better than the model's." : null}
          onChange={(event) => setRight(event.target.value)}
        />
        {kind === "row" && (
          <SelectField
            label="As"
            value={shape}
            options={[
              { value: "supervised", label: "an example to learn from" },
              { value: "dpo", label: "a preference: this answer over the model's" },
            ]}
            onChange={(event) => setShape(event.target.value as Shape)}
          />
        )}
        {numExamples > 0 && <SwitchField label="With the examples before the prompt" checked={withExamples} onChange={setWithExamples} />}
        <SelectField
          label="Rows before it"
          value={chosen}
          options={[{ value: "", label: "none: begin a new file" }, ...fitting.map((file) => ({ value: file.id, label: `those of ${file.filename} (${bytes(file.bytes)})` }))]}
          onChange={(event) => setChosen(event.target.value)}
        />
        <TextField label="Name of the new file" value={name} onChange={(event) => setTypedName(event.target.value)} />
        {save.isError && <ErrorBox error={save.error} />}
      </div>
    </Dialog>
  );
}

interface NewFile {
  source: Schemas["FileObject"] | undefined;
  name: string;
  line: object;
}

function useSave(kind: Saving["kind"], onClose: () => void) {
  const queries = useQueryClient();
  // Notes stand outside of the router, where links do not work.
  const navigate = useNavigate();
  const notify = useToast();
  return useMutation({
    mutationFn: async ({ source, name, line }: NewFile) => {
      const before = source ? await contentOf(source.id) : new Uint8Array();
      const ends = before.length === 0 || before[before.length - 1] === 0x0a;
      const file = new File([before, `${ends ? "" : "\n"}${JSON.stringify(line)}\n`], name, { type: "application/jsonl" });
      return upload(file, PURPOSES[kind], () => undefined);
    },
    onSuccess: async (made) => {
      onClose();
      notify(`Saved as ${made.filename}`, {
        detail: (
          <button type="button" className="text-accent underline" onClick={() => void navigate({ to: "/data/$fileId", params: { fileId: made.id }, search: { tab: "explore" } })}>
            Open the new file
          </button>
        ),
      });
      await queries.invalidateQueries({ queryKey: ["files"], exact: true });
    },
  });
}

async function contentOf(fileId: string): Promise<Uint8Array<ArrayBuffer>> {
  let response: Response;
  try {
    response = await fetch(`/v1/files/${encodeURIComponent(fileId)}/content`);
  } catch {
    throw new ApiError("The server cannot be reached. It may be restarting.", 0);
  }
  if (!response.ok) throw await refusal(response);
  return new Uint8Array(await response.arrayBuffer());
}

/** "rows.jsonl" becomes "rows-2.jsonl", and that "rows-3.jsonl". */
function nextName(name: string): string {
  const [, stem = name, number, ending = ""] = /^(.*?)(?:-(\d{1,6}))?(\.[^.]*)?$/.exec(name) ?? [];
  return `${stem}-${Number(number ?? 1) + 1}${ending}`;
}

function withoutExamples(turns: Turn[]): Turn[] {
  const last = turns[turns.length - 1];
  return [...turns.filter((turn) => turn.role === "system"), ...(last ? [last] : [])];
}

/** A line of a file for evals: what is asked and what is expected are fields of the item. */
const testCase = (turns: Turn[], expected: string) => ({ item: { messages: turns, expected } });

const example = (turns: Turn[], right: string) => ({ messages: [...turns, { role: "assistant", content: right }] });

const pair = (turns: Turn[], wrong: string, right: string) => ({
  input: { messages: turns },
  preferred_output: [{ role: "assistant", content: right }],
  non_preferred_output: [{ role: "assistant", content: wrong }],
});
