/** The answers of all columns. */
import { useCallback, useEffect, useRef, useState } from "react";

import { ask, isOpen, type Answer, type ChatBody } from "./ask";

export function useAnswers() {
  const [answers, setAnswers] = useState<(Answer | undefined)[]>([]);
  const aborts = useRef<AbortController[]>([]);
  // What an earlier run still has to say is of no interest.
  const round = useRef(0);
  const stop = useCallback(() => aborts.current.splice(0).forEach((abort) => abort.abort()), []);
  useEffect(() => stop, [stop]);
  const run = (bodies: ChatBody[]) => {
    stop();
    const own = (round.current += 1);
    setAnswers([]);
    aborts.current = bodies.map((body, index) => {
      const abort = new AbortController();
      void ask(body, abort.signal, (answer) => {
        if (own !== round.current) return;
        setAnswers((current) => {
          const next = current.slice();
          next[index] = answer;
          return next;
        });
      });
      return abort;
    });
  };
  const drop = (index: number) => {
    stop();
    round.current += 1;
    setAnswers((current) =>
      current.filter((_, place) => place !== index).map((answer) => (answer && isOpen(answer) ? { ...answer, state: "stopped" } : answer)),
    );
  };
  return { answers, run, stop, drop, isRunning: answers.some(isOpen) };
}
