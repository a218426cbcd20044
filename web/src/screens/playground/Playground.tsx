/** One prompt, up to four models: answers side by side as they come. */
import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { Code, Plus, Send, Square } from "lucide-react";
import { useMemo, useState } from "react";

import type { Schemas } from "@/api/client";
import { modelsQuery } from "@/api/queries";
import { Button } from "@/parts/Button";
import { CodeTabs } from "@/parts/Code";
import { Dialog } from "@/parts/Dialog";
import { Page } from "@/parts/Page";
import { TabBar } from "@/parts/Tabs";
import { Select, SwitchField, TextArea } from "@/parts/fields";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { chatCodes } from "@/lib/snippets";
import type { PlaygroundSearch } from "@/router";
import { kindOf } from "@/screens/models/tree";

import { useAnswers } from "./answers";
import { Column } from "./Column";
import { bodyOf, turnsOf, useDraft, type Draft, type SearchChange } from "./draft";
import { SaveDialog, type Saving } from "./SaveDialog";
import { Side } from "./Side";

const MAX_COLUMNS = 4;

export function Playground() {
  const models = useQuery(modelsQuery);
  return (
    <>
      {models.data && models.data.data.length > 0 ? (
        <Desk models={models.data.data} />
      ) : (
        <Page title="Playground">
          {models.isPending ? (
            <Loading lines={6} />
          ) : models.isError ? (
            <ErrorBox error={models.error} retry={() => void models.refetch()} />
          ) : (
            <Empty title="No models">
              <code>tunesmith base add</code> on the server gives it one to ask.
            </Empty>
          )}
        </Page>
      )}
    </>
  );
}

/** The first base, and beside it the newest of the tuned models. */
function firstChoice(models: Schemas["Model"][]): string[] {
  const base = models.find((model) => kindOf(model) === "base");
  const tuned = models.filter((model) => kindOf(model) === "tuned").sort((a, b) => b.created - a.created)[0];
  return [base, tuned].flatMap((model) => (model ? [model.id] : [])).slice(0, 2);
}

function Desk({ models }: { models: Schemas["Model"][] }) {
  const search = useSearch({ from: "/shell/playground" });
  const navigate = useNavigate();
  const change = (part: SearchChange) =>
    void navigate({ to: "/playground", search: (now) => present({ ...now, ...part }), replace: true, resetScroll: false });
  const columns = useMemo(
    () => (search.models === undefined ? firstChoice(models) : search.models.split(",").filter((name) => name !== "").slice(0, MAX_COLUMNS)),
    [search.models, models],
  );
  const { draft, change: changeDraft } = useDraft();
  const { answers, run, stop, drop, isRunning } = useAnswers();
  const [shownCode, setShownCode] = useState<number | null>(null);
  const [saving, setSaving] = useState<Saving | null>(null);
  const isSeparate = search.separate === "1" && columns.length > 1;
  const view = search.view === "difference" || search.view === "probabilities" ? search.view : "answers";
  const promptOf = (index: number) => (isSeparate ? (draft.prompts[index] ?? "") : draft.prompt);
  const bodies = columns.map((model, index) => bodyOf(model, turnsOf(draft, promptOf(index)), search));
  const isReady = columns.length > 0 && columns.every((_, index) => promptOf(index).trim() !== "");
  const go = () => isReady && !isRunning && run(bodies);
  const setColumns = (names: string[]) => change({ models: names.join(",") });
  const remove = (index: number) => {
    drop(index);
    changeDraft({ prompts: draft.prompts.filter((_, place) => place !== index) });
    setColumns(columns.filter((_, place) => place !== index));
  };
  return (
    <Page
      title="Playground"
      wide
      actions={
        <>
          <Button onClick={() => setShownCode(0)} disabled={columns.length === 0}>
            <Code size={15} /> View code
          </Button>
          <Button disabled={columns.length >= MAX_COLUMNS} onClick={() => setColumns([...columns, nextModel(columns, models)])}>
            <Plus size={15} /> Add a column
          </Button>
        </>
      }
    >
      <div className="grid gap-6 xl:grid-cols-[minmax(0,1fr)_19rem]">
        <div className="min-w-0">
          <Composer
            draft={draft}
            onDraft={changeDraft}
            isSeparate={isSeparate}
            canSeparate={columns.length > 1}
            onSeparate={(on) => {
              if (on) changeDraft({ prompts: columns.map((_, index) => draft.prompts[index] || draft.prompt) });
              change({ separate: on ? "1" : undefined });
            }}
            isReady={isReady}
            isRunning={isRunning}
            onRun={go}
            onStop={stop}
          />
          <div className="mt-5 mb-3">
            <TabBar
              label="How answers are shown"
              small
              value={view}
              onChange={(value) => change({ view: value === "answers" ? undefined : value })}
              tabs={[
                { value: "answers", label: "Answers" },
                { value: "difference", label: "Difference to column 1" },
                { value: "probabilities", label: "Probabilities" },
              ]}
            />
          </div>
          {columns.length === 0 && <Empty title="No column">Add one to ask a model.</Empty>}
          <div className="grid gap-4 [grid-template-columns:repeat(auto-fit,minmax(min(100%,14.5rem),1fr))]">
            {columns.map((model, index) => (
              <Column
                key={index}
                number={index + 1}
                model={model}
                models={models}
                answer={answers[index]}
                first={index === 0 ? undefined : answers[0]}
                view={view}
                prompt={isSeparate ? promptOf(index) : null}
                onPrompt={(prompt) => changeDraft({ prompts: columns.map((_, place) => (place === index ? prompt : promptOf(place))) })}
                onRun={go}
                onModel={(name) => setColumns(columns.map((each, place) => (place === index ? name : each)))}
                onRemove={columns.length > 1 ? () => remove(index) : null}
                onCode={() => setShownCode(index)}
                onSave={setSaving}
                onExample={(example) => changeDraft({ examples: [...draft.examples, example] })}
              />
            ))}
          </div>
        </div>
        <Side draft={draft} onDraft={changeDraft} search={search} onSearch={change} />
      </div>
      {shownCode !== null && (
        <Dialog open onOpenChange={(open) => !open && setShownCode(null)} title="The same request" description="As it is sent when you run it, with your key." wide>
          {columns.length > 1 && (
            <Select
              aria-label="Column"
              className="mb-3 max-w-full"
              value={String(shownCode)}
              options={columns.map((model, index) => ({ value: String(index), label: `${index + 1}: ${model}` }))}
              onChange={(event) => setShownCode(Number(event.target.value))}
            />
          )}
          {bodies[shownCode] && <CodeTabs codes={chatCodes(bodies[shownCode])} />}
        </Dialog>
      )}
      {saving && <SaveDialog saving={saving} onClose={() => setSaving(null)} />}
    </Page>
  );
}

/** Without what is not set, so that addresses stay short. */
function present(search: SearchChange): PlaygroundSearch {
  return Object.fromEntries(Object.entries(search).filter(([, value]) => value !== undefined));
}

/** One that is not asked yet. */
const nextModel = (columns: string[], models: Schemas["Model"][]): string =>
  models.find((model) => !columns.includes(model.id))?.id ?? columns[0] ?? models[0]?.id ?? "";

interface ComposerProps {
  draft: Draft;
  onDraft: (part: Partial<Draft>) => void;
  isSeparate: boolean;
  canSeparate: boolean;
  onSeparate: (on: boolean) => void;
  isReady: boolean;
  isRunning: boolean;
  onRun: () => void;
  onStop: () => void;
}

function Composer({ draft, onDraft, isSeparate, canSeparate, onSeparate, isReady, isRunning, onRun, onStop }: ComposerProps) {
  return (
    <section className="rounded-xl border border-line bg-surface p-4">
      {isSeparate ? (
        <p className="text-sm text-soft">Each column has a prompt of its own, below its model.</p>
      ) : (
        <TextArea
          label="Prompt"
          rows={4}
          value={draft.prompt}
          placeholder="What do you want to ask?"
          onChange={(event) => onDraft({ prompt: event.target.value })}
          onKeyDown={(event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) onRun();
          }}
        />
      )}
      <div className="mt-3 flex flex-wrap items-center justify-between gap-3">
        {canSeparate ? <SwitchField label="A prompt for each column" checked={isSeparate} onChange={onSeparate} /> : <span />}
        <div className="flex items-center gap-3">
          <span className="text-xs text-faint max-sm:hidden">
            <kbd>Ctrl Enter</kbd>
          </span>
          {isRunning ? (
            <Button onClick={onStop}>
              <Square size={13} fill="currentColor" /> Stop
            </Button>
          ) : (
            <Button kind="primary" disabled={!isReady} onClick={onRun}>
              <Send size={14} /> Run
            </Button>
          )}
        </div>
      </div>
    </section>
  );
}
