import { Check, Copy } from "lucide-react";
import { useState } from "react";

import { IconButton } from "./Button";
import { TabBar } from "./Tabs";

/** Copies with a word to screen readers; works without the clipboard API on plain http, too. */
export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await copyText(text);
    setDone(true);
    setTimeout(() => setDone(false), 1600);
  };
  return (
    <IconButton label={done ? "Copied" : label} onClick={() => void copy()}>
      {done ? <Check size={15} className="text-good" /> : <Copy size={15} />}
    </IconButton>
  );
}

async function copyText(text: string): Promise<void> {
  // The clipboard API exists on https and localhost only; servers on a LAN are often neither.
  if (window.isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export function CodeBlock({ code, label }: { code: string; label?: string }) {
  return (
    <div className="relative rounded-lg border border-line bg-sunken">
      <pre tabIndex={0} aria-label={label} className="overflow-x-auto py-3 pr-12 pl-4 font-mono text-xs leading-relaxed">
        {code}
      </pre>
      <div className="absolute top-1.5 right-1.5 rounded-lg bg-sunken">
        <CopyButton text={code} />
      </div>
    </div>
  );
}

/** The same call in several languages; the reader's choice is kept on this device. */
export function CodeTabs({ codes }: { codes: Record<string, string> }) {
  const names = Object.keys(codes);
  const kept = localStorage.getItem("code-language");
  const [name, setName] = useState(kept !== null && names.includes(kept) ? kept : (names[0] ?? ""));
  const choose = (next: string) => {
    localStorage.setItem("code-language", next);
    setName(next);
  };
  return (
    <div>
      <TabBar label="Language" value={name} onChange={choose} tabs={names.map((each) => ({ value: each, label: each }))} small />
      <div className="mt-2">
        <CodeBlock code={codes[name] ?? ""} label={name} />
      </div>
    </div>
  );
}
