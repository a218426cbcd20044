/** Ctrl-K opens the palette; "g" and a letter go to a place; "c" begins a new job. */
import { useNavigate } from "@tanstack/react-router";
import { useEffect } from "react";

import { isTyping } from "@/parts/rowkeys";

import { PLACES } from "./places";

const CHORD_MS = 1200;

export function useHotkeys(openPalette: () => void): void {
  const navigate = useNavigate();
  useEffect(() => {
    let chordUntil = 0;
    const onKey = (event: KeyboardEvent) => {
      if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        openPalette();
        return;
      }
      if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
      if (document.querySelector("[role=dialog]")) return;
      if (event.timeStamp < chordUntil) {
        chordUntil = 0;
        const place = PLACES.find((each) => each.key === event.key);
        if (place) void navigate({ to: place.to });
      } else if (event.key === "g") {
        chordUntil = event.timeStamp + CHORD_MS;
      } else if (event.key === "c") {
        void navigate({ to: "/jobs/new" });
      } else if (event.key === "?" || event.key === "/") {
        event.preventDefault();
        openPalette();
      }
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, [navigate, openPalette]);
}
