/** Watch it learn: the same prompts, answered by the start and by each checkpoint. */
import { useQuery } from "@tanstack/react-query";
import clsx from "clsx";
import { Check, Pause, Play } from "lucide-react";
import { useEffect, useState } from "react";

import type { Schemas } from "@/api/client";
import { ENDED, samplesQuery, type JobNow } from "@/api/jobs";
import { Badge } from "@/parts/Badge";
import { IconButton } from "@/parts/Button";
import { Diff } from "@/parts/Diff";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { count } from "@/lib/format";

type Samples = Schemas["Samples"];
type Answer = Schemas["Answer"];

const PLAY_MS = 1400;

export function Samples({ now }: { now: JobNow }) {
  const samples = useQuery(samplesQuery(now.id));
  if (samples.isPending) return <Loading lines={6} />;
  if (samples.isError) return <ErrorBox error={samples.error} retry={() => void samples.refetch()} />;
  const found = samples.data;
  if (found.samples.length === 0) {
    return (
      <Empty title={found.skipped ? "No answers were taken" : "No answers yet"}>
        {found.skipped
          ? "Answering would have taken too much of the training time. The checkpoints can be asked in the playground."
          : ENDED.includes(now.job.status)
            ? "The job ended before its first checkpoint."
            : "Five prompts are answered before the training and at each checkpoint, the first at the end of the first epoch."}
      </Empty>
    );
  }
  return <Strip found={found} />;
}

function Strip({ found }: { found: Samples }) {
  const last = found.samples.length - 1;
  const [chosen, setChosen] = useState<number | null>(null);
  const [plays, setPlays] = useState(false);
  const at = Math.min(chosen ?? last, last);
  useEffect(() => {
    if (!plays) return;
    const timer = setTimeout(() => {
      if (at >= last) setPlays(false);
      else setChosen(at + 1);
    }, PLAY_MS);
    return () => clearTimeout(timer);
  }, [plays, at, last]);
  const play = () => {
    if (!plays && at >= last) setChosen(0);
    setPlays(!plays);
  };
  return (
    <div className="flex flex-col gap-4">
      <div className="flex flex-wrap items-center gap-2">
        <IconButton label={plays ? "Stop" : "Play from the start"} onClick={play}>
          {plays ? <Pause size={16} /> : <Play size={16} />}
        </IconButton>
        <div role="group" aria-label="Checkpoint" className="flex flex-wrap gap-1">
          {found.samples.map((sample, index) => (
            <button
              key={sample.step}
              type="button"
              aria-pressed={index === at}
              onClick={() => {
                setPlays(false);
                setChosen(index);
              }}
              className={clsx(
                "num rounded-lg border px-2.5 py-1 text-xs font-medium transition-colors",
                index === at ? "border-accent bg-accent-wash text-accent" : "border-line bg-surface text-soft hover:bg-hover",
              )}
            >
              {sample.step === 0 ? "before training" : `step ${count(sample.step)}`}
            </button>
          ))}
        </div>
        {found.skipped && <Badge tone="warn">earlier checkpoints were not asked, to save time</Badge>}
      </div>
      <div className="grid gap-3">
        {found.prompts.map((prompt, index) => {
          const sample = found.samples[at];
          const answer = sample?.answers[index];
          const before = found.samples[0]?.answers[index];
          return (
            <article key={index} className="grid gap-x-6 gap-y-3 rounded-xl border border-line bg-surface p-5 lg:grid-cols-[minmax(0,5fr)_minmax(0,4fr)_minmax(0,3fr)]">
              <Part title={`Prompt · row ${count(prompt.row)} of the ${prompt.file === "validation_file" ? "validation" : "training"} file`}>
                <pre className="max-h-56 overflow-auto font-mono text-xs whitespace-pre-wrap text-soft [overflow-wrap:anywhere]" tabIndex={0}>
                  {prompt.text}
                </pre>
              </Part>
              <Part title={at === 0 ? "Answer before training" : `Answer at step ${count(sample?.step ?? 0)}`}>
                {answer && <Said answer={answer} expected={prompt.expected} before={at === 0 ? null : (before ?? null)} />}
              </Part>
              <Part title="Expected">
                <p className="text-sm whitespace-pre-wrap [overflow-wrap:anywhere]">{prompt.expected}</p>
              </Part>
            </article>
          );
        })}
      </div>
    </div>
  );
}

function Part({ title, children }: { title: string; children: React.ReactNode }) {
  return (
    <div className="min-w-0">
      <h3 className="mb-1.5 text-xs text-faint">{title}</h3>
      {children}
    </div>
  );
}

function Said({ answer, expected, before }: { answer: Answer; expected: string; before: Answer | null }) {
  const isRight = answer.text.trim() === expected.trim();
  return (
    <>
      <p className="text-sm whitespace-pre-wrap [overflow-wrap:anywhere]">
        {answer.text === "" ? <span className="text-faint">nothing</span> : before === null || before.text === answer.text ? answer.text : <Diff before={before.text} after={answer.text} />}
      </p>
      <p className="num mt-2 flex flex-wrap items-center gap-2 text-xs text-faint">
        {isRight && (
          <Badge tone="good">
            <Check size={12} aria-hidden /> as expected
          </Badge>
        )}
        {count(answer.num_tokens)} tokens{answer.stops ? "" : ", cut off"}
      </p>
    </>
  );
}
