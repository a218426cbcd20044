/** Makes a key, and shows it the one time that it is shown. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { TriangleAlert } from "lucide-react";
import { useState } from "react";

import { createKey, keysQuery, type NewKey } from "@/api/keys";
import { Button } from "@/parts/Button";
import { CodeBlock } from "@/parts/Code";
import { Dialog } from "@/parts/Dialog";
import { Pair } from "@/parts/Stat";
import { ErrorBox } from "@/parts/states";
import { SelectField, SwitchField, TextField } from "@/parts/fields";
import { when } from "@/lib/format";

const ROLES: Record<string, string> = {
  reader: "Reads files, jobs, models and reports.",
  member: "Reads, uploads files, runs jobs, and asks models.",
  owner: "Everything in the project, its keys included. Owners of the default project run the organisation, too.",
};
const DAY_S = 86_400;
const LIFETIMES = [
  { value: "", label: "Never" },
  ...[7, 30, 90, 365].map((days) => ({ value: String(days * DAY_S), label: `In ${days} days` })),
];

interface Props {
  open: boolean;
  onOpenChange: (open: boolean) => void;
  /** What this session may do, and so the most that it can give. */
  ownScopes: string[];
}

export function NewKeyDialog({ open, onOpenChange, ownScopes }: Props) {
  const [made, setMade] = useState<NewKey | null>(null);
  const close = (next: boolean) => {
    onOpenChange(next);
    if (!next) setMade(null);
  };
  if (made) return <Made made={made} open={open} onOpenChange={close} />;
  return <Form open={open} onOpenChange={close} ownScopes={ownScopes} onMade={setMade} />;
}

function Form({ open, onOpenChange, ownScopes, onMade }: Props & { onMade: (made: NewKey) => void }) {
  const queries = useQueryClient();
  const [name, setName] = useState("");
  const [role, setRole] = useState("member");
  const [lifetime, setLifetime] = useState("");
  const [narrows, setNarrows] = useState(false);
  const [scopes, setScopes] = useState<string[]>([]);
  const create = useMutation({
    mutationFn: () =>
      createKey({
        name: name.trim(),
        role,
        ...(narrows ? { scopes } : {}),
        ...(lifetime === "" ? {} : { expires_in_seconds: Number(lifetime) }),
      }),
    onSuccess: (made) => {
      onMade(made);
      void queries.invalidateQueries({ queryKey: keysQuery.queryKey });
    },
  });
  const flip = (scope: string) => setScopes(scopes.includes(scope) ? scopes.filter((each) => each !== scope) : [...scopes, scope]);
  const ready = name.trim() !== "" && (!narrows || scopes.length > 0);
  return (
    <Dialog
      open={open}
      onOpenChange={onOpenChange}
      title="New key"
      description="For this project. It can do no more than the key you are signed in with."
      footer={
        <>
          <Button onClick={() => onOpenChange(false)}>Cancel</Button>
          <Button kind="primary" type="submit" form="new-key" disabled={!ready} busy={create.isPending}>
            Create key
          </Button>
        </>
      }
    >
      <form
        id="new-key"
        className="flex flex-col gap-4"
        onSubmit={(event) => {
          event.preventDefault();
          if (ready && !create.isPending) create.mutate();
        }}
      >
        <TextField label="Name" autoFocus autoComplete="off" maxLength={256} value={name} onChange={(event) => setName(event.target.value)} help="What will use it, so that you know later which to revoke." />
        <SelectField label="Role" value={role} onChange={(event) => setRole(event.target.value)} options={Object.keys(ROLES).map((each) => ({ value: each, label: each }))} help={ROLES[role]} />
        <SelectField label="Expires" value={lifetime} onChange={(event) => setLifetime(event.target.value)} options={LIFETIMES} />
        {ownScopes.length > 0 && <SwitchField label="Only some of what the role may do" checked={narrows} onChange={setNarrows} />}
        {narrows && (
          <fieldset className="rounded-lg border border-line px-3 py-3">
            <legend className="px-1 text-xs text-faint">Scopes; those that the role does not have give nothing</legend>
            <div className="grid gap-x-3 gap-y-1.5 sm:grid-cols-2">
              {ownScopes.map((scope) => (
                <label key={scope} className="flex items-start gap-2 font-mono text-[0.6875rem] [overflow-wrap:anywhere]">
                  <input type="checkbox" className="mt-0.5 accent-accent" checked={scopes.includes(scope)} onChange={() => flip(scope)} />
                  {scope}
                </label>
              ))}
            </div>
          </fieldset>
        )}
        {create.isError && <ErrorBox error={create.error} />}
      </form>
    </Dialog>
  );
}

function Made({ made, open, onOpenChange }: { made: NewKey; open: boolean; onOpenChange: (open: boolean) => void }) {
  return (
    <Dialog
      open={open}
      onOpenChange={onOpenChange}
      firm
      title="Copy the key now"
      footer={
        <Button kind="primary" onClick={() => onOpenChange(false)}>
          I have copied it
        </Button>
      }
    >
      <div className="flex flex-col gap-4">
        <p className="flex gap-2.5 rounded-lg bg-warn-wash px-3 py-2.5 text-sm">
          <TriangleAlert size={16} className="mt-0.5 shrink-0 text-warn" />
          <span>It is shown this once: the server keeps only a hash. Whoever has it can use it, so keep it out of code and chats.</span>
        </p>
        <CodeBlock label="The new key" code={made.value} />
        <dl>
          <Pair label="Name">{made.name}</Pair>
          <Pair label="Role">{made.role}</Pair>
          <Pair label="May">
            <span className="font-mono text-xs whitespace-pre-line">{made.scopes.join("\n") || "nothing: its role has none of the scopes chosen"}</span>
          </Pair>
          <Pair label="Expires">{made.expires_at === null ? "never" : when(made.expires_at)}</Pair>
        </dl>
      </div>
    </Dialog>
  );
}
