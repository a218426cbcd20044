/** Sign-in by API key, or by the link that the server printed when it started. */
import { useQueryClient } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { useEffect, useRef, useState, type FormEvent } from "react";

import { ApiError } from "@/api/client";
import { signIn } from "@/api/session";
import { Button } from "@/parts/Button";
import { TextField } from "@/parts/fields";
import { Loading } from "@/parts/states";

const USED = "This link was used already, or is too old. Sign in with a key, or start the server again for a new link.";

export function SignIn() {
  const { back } = useSearch({ from: "/signin" });
  const navigate = useNavigate();
  const queries = useQueryClient();
  const [key, setKey] = useState("");
  const [error, setError] = useState<string | null>(null);
  // The link's secret stands behind "#", so that no server log and no other site sees it.
  const [link] = useState(() => new URLSearchParams(window.location.hash.slice(1)).get("link"));
  const [busy, setBusy] = useState(link !== null);
  const isTried = useRef(false);

  const enter = async (secret: string) => {
    setBusy(true);
    setError(null);
    try {
      await signIn(secret);
      queries.clear();
      await navigate({ href: back?.startsWith("/") && !back.startsWith("//") ? back : "/", replace: true });
    } catch (refused) {
      const isUsed = secret === link && refused instanceof ApiError && refused.status === 401;
      setError(isUsed ? USED : refused instanceof Error ? refused.message : String(refused));
      setBusy(false);
    }
  };

  useEffect(() => {
    document.title = "Sign in · Tunesmith";
    if (link === null || isTried.current) return;
    // A link works once: never twice from one page, however often it is rendered.
    isTried.current = true;
    window.history.replaceState(null, "", "/signin");
    void enter(link);
  });

  const submit = (event: FormEvent) => {
    event.preventDefault();
    void enter(key.trim());
  };
  return (
    <main className="flex min-h-dvh flex-col items-center justify-center px-4 py-10">
      <div className="w-full max-w-sm">
        <img src="/favicon.svg" alt="" width={40} height={40} className="mb-5" />
        <h1 className="text-2xl font-semibold tracking-tight">Sign in to Tunesmith</h1>
        <p className="mt-1.5 mb-6 text-sm text-soft">
          With an API key of this server. It stays here: the browser keeps a session that no script can read.
        </p>
        {busy && link !== null ? (
          <Loading lines={2} label="Signing in" />
        ) : (
          <form onSubmit={submit} className="flex flex-col gap-4">
            <TextField
              label="API key"
              type="password"
              autoComplete="current-password"
              placeholder="sk-…"
              value={key}
              onChange={(event) => setKey(event.target.value)}
              error={error}
              autoFocus
              required
            />
            <Button kind="primary" type="submit" busy={busy} disabled={key.trim() === ""}>
              Sign in
            </Button>
          </form>
        )}
        <p className="mt-6 text-xs leading-relaxed text-faint">
          <code className="font-mono">tunesmith serve</code> prints a link that signs you in once. Without a key:{" "}
          <code className="font-mono">tunesmith keys create me</code> on the server makes one.
        </p>
      </div>
    </main>
  );
}
