/** What a screen shows while there is nothing to show: loading, empty, failed, not allowed. */
import { Lock, TriangleAlert } from "lucide-react";
import type { ReactNode } from "react";

import { ApiError } from "@/api/client";

import { Button } from "./Button";

export function Empty({ icon, title, children, action }: { icon?: ReactNode; title: string; children?: ReactNode; action?: ReactNode }) {
  return (
    <div className="flex flex-col items-center rounded-xl border border-dashed border-line px-6 py-14 text-center">
      {icon && (
        <div className="mb-4 flex size-11 items-center justify-center rounded-xl bg-accent-wash text-accent">{icon}</div>
      )}
      <h2 className="text-lg font-semibold">{title}</h2>
      {children && <div className="mt-1.5 max-w-md text-sm text-soft">{children}</div>}
      {action && <div className="mt-5 flex flex-wrap justify-center gap-2">{action}</div>}
    </div>
  );
}

export function ErrorBox({ error, retry }: { error: unknown; retry?: () => void }) {
  const known = error instanceof ApiError ? error : null;
  const denied = known?.status === 403;
  const message = error instanceof Error ? error.message : "Something went wrong.";
  return (
    <div role="alert" className="flex gap-3 rounded-xl border border-line bg-bad-wash px-4 py-3 text-sm">
      <span className="mt-0.5 text-bad">{denied ? <Lock size={16} /> : <TriangleAlert size={16} />}</span>
      <div className="min-w-0 flex-1">
        <p className="font-medium [overflow-wrap:anywhere]">{denied ? `No permission. ${message}` : message}</p>
        {known?.requestId && <p className="mt-0.5 font-mono text-xs text-soft">{known.requestId}</p>}
      </div>
      {retry && !denied && (
        <Button size="sm" onClick={retry}>
          Try again
        </Button>
      )}
    </div>
  );
}

export const isDenied = (error: unknown): error is ApiError => error instanceof ApiError && error.status === 403;

/** In the place of a screen or a card that this session's key does not open; `children`: who can. */
export function Denied({ title, error, children }: { title: string; error: ApiError; children?: ReactNode }) {
  return (
    <Empty icon={<Lock size={20} />} title={title}>
      {children}
      <p className="mt-3 text-xs text-faint [overflow-wrap:anywhere]">{error.message}</p>
    </Empty>
  );
}

/** Grey bars in the place of content that is on its way. */
export function Loading({ lines = 4, label = "Loading" }: { lines?: number; label?: string }) {
  return (
    <div role="status" aria-label={label} className="flex flex-col gap-3 py-2 motion-safe:animate-[fade_0.6s]">
      {Array.from({ length: lines }, (_, index) => (
        <div
          key={index}
          className="h-5 rounded-md bg-sunken motion-safe:animate-[shimmer_1.6s_ease-in-out_infinite] odd:w-11/12 even:w-3/4"
        />
      ))}
    </div>
  );
}
