/** j and k walk through the rows of a list, Enter opens one. */
import { useEffect, useRef, useState } from "react";

/** Whether a key press belongs to a field that is being typed in. */
export function isTyping(event: KeyboardEvent): boolean {
  const target = event.target;
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName);
}

export function useRowKeys(numRows: number, open: (index: number) => void) {
  const [current, setCurrent] = useState(-1);
  const rows = useRef(new Map<number, HTMLElement>());
  const state = useRef({ current, open, numRows });
  useEffect(() => {
    state.current = { current, open, numRows };
  });
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
      if (document.querySelector("[role=dialog]")) return;
      const at = state.current;
      if (event.key === "j" || event.key === "k") {
        if (at.numRows === 0) return;
        const next = Math.min(at.numRows - 1, Math.max(0, at.current + (event.key === "j" ? 1 : -1)));
        setCurrent(next);
        rows.current.get(next)?.scrollIntoView({ block: "nearest" });
      } else if (event.key === "Enter" && at.current >= 0 && event.target === document.body) {
        at.open(at.current);
      }
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, []);
  const register = (index: number) => (element: HTMLElement | null) => {
    if (element) rows.current.set(index, element);
    else rows.current.delete(index);
  };
  return { current, setCurrent, register };
}
