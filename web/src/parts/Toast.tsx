import clsx from "clsx";
import { X } from "lucide-react";
import { Toast } from "radix-ui";
import { createContext, useCallback, useContext, useState, type ReactNode } from "react";

interface Note {
  key: number;
  title: string;
  detail?: ReactNode;
  tone: "good" | "bad";
}

type Notify = (title: string, options?: { detail?: ReactNode; tone?: "good" | "bad" }) => void;

const Context = createContext<Notify>(() => undefined);

/** Says in the corner that something is done, or has failed. */
export const useToast = (): Notify => useContext(Context);

let lastKey = 0;

export function Toasts({ children }: { children: ReactNode }) {
  const [notes, setNotes] = useState<Note[]>([]);
  const notify = useCallback<Notify>((title, options = {}) => {
    lastKey += 1;
    const note: Note = { key: lastKey, title, tone: options.tone ?? "good", detail: options.detail };
    setNotes((current) => [...current.slice(-2), note]);
  }, []);
  const drop = (key: number) => setNotes((current) => current.filter((each) => each.key !== key));
  return (
    <Context.Provider value={notify}>
      <Toast.Provider swipeDirection="right" duration={6000}>
        {children}
        {notes.map((note) => (
          <Toast.Root
            key={note.key}
            onOpenChange={(open) => !open && drop(note.key)}
            className="flex items-start gap-3 rounded-xl border border-line bg-surface px-4 py-3 shadow-float motion-safe:animate-[rise_0.18s]"
          >
            <span aria-hidden className={clsx("mt-1.5 size-2 shrink-0 rounded-full", note.tone === "good" ? "bg-good" : "bg-bad")} />
            <div className="min-w-0 flex-1 text-sm [overflow-wrap:anywhere]">
              <Toast.Title className="font-medium">{note.title}</Toast.Title>
              {note.detail !== undefined && <Toast.Description className="text-soft">{note.detail}</Toast.Description>}
            </div>
            <Toast.Close aria-label="Dismiss" className="text-faint hover:text-ink">
              <X size={14} />
            </Toast.Close>
          </Toast.Root>
        ))}
        <Toast.Viewport className="fixed right-4 bottom-4 z-[60] flex w-96 max-w-[calc(100vw-2rem)] flex-col gap-2" />
      </Toast.Provider>
    </Context.Provider>
  );
}
