/** The time of day, in seconds, drawn anew each second while it matters. */
import { useEffect, useState } from "react";

const now = (): number => Date.now() / 1000;

export function useNow(isTicking: boolean): number {
  const [seconds, setSeconds] = useState(now);
  useEffect(() => {
    if (!isTicking) return;
    const timer = setInterval(() => setSeconds(now()), 1000);
    return () => clearInterval(timer);
  }, [isTicking]);
  return seconds;
}
