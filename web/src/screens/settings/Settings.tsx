/** The project's keys, who is signed in, what this server is, and how this page looks. */
import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";

import { sessionQuery, statusQuery } from "@/api/queries";
import { signOut } from "@/api/session";
import { Button } from "@/parts/Button";
import { Card, Page } from "@/parts/Page";
import { Pair } from "@/parts/Stat";
import { ErrorBox, Loading } from "@/parts/states";
import { bytes, count } from "@/lib/format";
import { PLACES } from "@/shell/places";
import { useTheme, type Theme } from "@/shell/theme";

import { Keys } from "./Keys";

export function Settings() {
  return (
    <Page title="Keys & settings">
      <div className="grid gap-5 lg:grid-cols-2">
        <Keys />
        <div className="flex flex-col gap-5">
          <Session />
          <Appearance />
        </div>
        <Server />
        <Keyboard />
      </div>
    </Page>
  );
}

function Session() {
  const session = useQuery(sessionQuery);
  const navigate = useNavigate();
  const leave = async () => {
    await signOut();
    await navigate({ to: "/signin", search: {} });
  };
  return (
    <Card title="This session" actions={<Button size="sm" onClick={() => void leave()}>Sign out</Button>}>
      {session.isPending && <Loading lines={3} />}
      {session.isError && <ErrorBox error={session.error} />}
      {session.data && (
        <dl>
          <Pair label="Key">{session.data.key_name}</Pair>
          <Pair label="Begins and ends with">
            <span className="font-mono text-xs">{session.data.key}</span>
          </Pair>
          <Pair label="Id">
            <span className="font-mono text-xs">{session.data.key_id}</span>
          </Pair>
        </dl>
      )}
      <p className="mt-3 text-xs text-faint">
        A session lasts seven days, or until its key is revoked. No script of a page can read it, and no other site can use it.
      </p>
    </Card>
  );
}

function Server() {
  const status = useQuery(statusQuery);
  return (
    <Card title="Server">
      {status.isPending && <Loading />}
      {status.isError && <ErrorBox error={status.error} retry={() => void status.refetch()} />}
      {status.data && (
        <dl>
          <Pair label="Version">{status.data.version}</Pair>
          <Pair label="Organisation">{status.data.organization}</Pair>
          <Pair label="Base URL">
            <span className="font-mono text-xs">{`${window.location.origin}/v1`}</span>
          </Pair>
          <Pair label="Largest file">{bytes(status.data.max_file_bytes)}</Pair>
          <Pair label="Jobs at a time">{count(status.data.worker.slots)}</Pair>
          <Pair label="Memory for models">{bytes(status.data.engine.budget_bytes)}</Pair>
        </dl>
      )}
      <p className="mt-3 text-xs text-faint">
        Settings come from <code>TUNESMITH_…</code> variables and <code>tunesmith.toml</code>, and are read when the server starts.
      </p>
    </Card>
  );
}

const THEMES: { value: Theme | null; label: string }[] = [
  { value: null, label: "As the device" },
  { value: "light", label: "Light" },
  { value: "dark", label: "Dark" },
];

function Appearance() {
  const { chosen, setTheme } = useTheme();
  return (
    <Card title="Appearance">
      <div role="radiogroup" aria-label="Theme" className="flex flex-wrap gap-2">
        {THEMES.map(({ value, label }) => (
          <label
            key={label}
            className="flex cursor-pointer items-center gap-2 rounded-lg border border-line px-3 py-2 text-sm has-checked:border-accent has-checked:bg-accent-wash has-focus-visible:outline-2 has-focus-visible:outline-accent"
          >
            <input type="radio" name="theme" checked={chosen === value} onChange={() => setTheme(value)} className="accent-accent" />
            {label}
          </label>
        ))}
      </div>
    </Card>
  );
}

const KEYS: [string, string][] = [
  ["Ctrl K", "search and commands"],
  ["c", "new job"],
  ["j / k", "next and previous row of a list"],
  ["Enter", "open the row"],
  ...PLACES.map((place): [string, string] => [`g ${place.key}`, place.label]),
];

function Keyboard() {
  return (
    <Card title="Keyboard" className="lg:col-span-2">
      <dl className="grid gap-x-8 gap-y-1.5 text-sm sm:grid-cols-2 lg:grid-cols-4">
        {KEYS.map(([keys, does]) => (
          <div key={keys} className="flex items-center gap-3">
            <dt className="w-16 shrink-0">
              <kbd className="rounded-md border border-line bg-sunken px-1.5 py-0.5 font-sans text-xs">{keys}</kbd>
            </dt>
            <dd className="text-soft">{does}</dd>
          </div>
        ))}
      </dl>
    </Card>
  );
}
