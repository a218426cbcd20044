/** The keys of the project: made, seen, revoked. */
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Plus, Trash2 } from "lucide-react";
import { useMemo, useState } from "react";

import { keysQuery, revokeKey, type Key } from "@/api/keys";
import { sessionQuery } from "@/api/queries";
import { Badge } from "@/parts/Badge";
import { Button } from "@/parts/Button";
import { Confirm } from "@/parts/Dialog";
import { Table, type ColumnDef } from "@/parts/Table";
import { Tip } from "@/parts/Tip";
import { useToast } from "@/parts/Toast";
import { Denied, Empty, ErrorBox, isDenied, Loading } from "@/parts/states";
import { ago, plural, when } from "@/lib/format";

import { NewKeyDialog } from "./NewKeyDialog";

export function Keys() {
  const keys = useQuery(keysQuery);
  const session = useQuery(sessionQuery);
  const [makes, setMakes] = useState(false);
  const [revoked, setRevoked] = useState<Key | null>(null);
  const ownId = session.data?.key_id;
  const columns = useMemo(() => columnsOf(ownId, setRevoked), [ownId]);
  const own = keys.data?.find((key) => key.id === ownId);
  const create = keys.isSuccess && (
    <Button size="sm" kind="primary" onClick={() => setMakes(true)}>
      <Plus size={14} /> New key
    </Button>
  );
  return (
    <section className="min-w-0 lg:col-span-2">
      <div className="mb-3 flex min-h-7 items-center justify-between gap-2">
        <h2 className="text-sm font-semibold">API keys</h2>
        {create}
      </div>
      {keys.isPending ? (
        <Loading />
      ) : isDenied(keys.error) ? (
        <Denied title="Owners of the project see its keys" error={keys.error}>
          Ask an owner for a key, or sign in with an owner's. On the server, <code>tunesmith keys create NAME</code> makes one.
        </Denied>
      ) : keys.isError ? (
        <ErrorBox error={keys.error} retry={() => void keys.refetch()} />
      ) : keys.data.length === 0 ? (
        <Empty title="No keys in use">The key of this session belongs to no project.</Empty>
      ) : (
        <Table label="API keys" rows={keys.data} columns={columns} rowKey={(key) => key.id} />
      )}
      {keys.isSuccess && <p className="mt-3 text-xs text-faint">Keys in use, oldest first. A whole key is shown once, when it is made.</p>}
      <NewKeyDialog open={makes} onOpenChange={setMakes} ownScopes={own?.scopes ?? []} />
      <Revoke target={revoked} isOwn={revoked?.id === ownId} onClose={() => setRevoked(null)} />
    </section>
  );
}

function Revoke({ target, isOwn, onClose }: { target: Key | null; isOwn: boolean; onClose: () => void }) {
  const queries = useQueryClient();
  const notify = useToast();
  const revoke = useMutation({
    mutationFn: (key: Key) => revokeKey(key.id),
    onSuccess: async (_, key) => {
      onClose();
      notify("Key revoked", { detail: key.name });
      await queries.invalidateQueries({ queryKey: keysQuery.queryKey });
    },
    onError: (error) => {
      onClose();
      notify("The key was not revoked", { detail: error.message, tone: "bad" });
    },
  });
  return (
    <Confirm
      open={target !== null}
      onOpenChange={(open) => !open && onClose()}
      title="Revoke this key?"
      action="Revoke"
      busy={revoke.isPending}
      onConfirm={() => target && revoke.mutate(target)}
    >
      <strong className="text-ink">{target?.name}</strong> <span className="font-mono text-xs">{target?.redacted_value}</span> opens nothing from the next
      request on, and cannot be brought back.
      {isOwn && <p className="mt-2 text-bad">This session stands for this key: revoking it signs you out.</p>}
    </Confirm>
  );
}

function columnsOf(ownId: string | undefined, revoke: (key: Key) => void): ColumnDef<Key, never>[] {
  return [
    {
      id: "name",
      accessorKey: "name",
      header: "Name",
      cell: ({ row: { original: key } }) => (
        <div className="min-w-28">
          <div className="flex flex-wrap items-center gap-x-2">
            <span className="font-medium [overflow-wrap:anywhere]">{key.name}</span>
            {key.id === ownId && <Badge tone="accent">this session</Badge>}
            {key.owner_project_access === "inactive" && <Badge tone="warn">owner has left</Badge>}
          </div>
          <div className="font-mono text-xs text-faint">{key.redacted_value}</div>
        </div>
      ),
    },
    {
      id: "role",
      accessorKey: "role",
      header: "Role",
      cell: ({ row: { original: key } }) => (
        <div>
          {key.role}
          <Tip text={<span className="font-mono whitespace-pre-line">{key.scopes.join("\n") || "none"}</span>}>
            <button type="button" className="block text-xs whitespace-nowrap text-faint underline decoration-dotted underline-offset-2">
              {plural(key.scopes.length, "scope")}
            </button>
          </Tip>
        </div>
      ),
    },
    { id: "owner", header: "Belongs to", meta: { secondary: true }, enableSorting: false, cell: ({ row }) => ownerOf(row.original) },
    timeColumn("created_at", "Created", "–"),
    timeColumn("last_used_at", "Last used", "never"),
    { id: "expires_at", accessorKey: "expires_at", header: "Expires", meta: { secondary: true }, cell: ({ row }) => <Time at={row.original.expires_at} none="never" exact /> },
    {
      id: "revoke",
      header: () => <span className="sr-only">Revoke</span>,
      enableSorting: false,
      cell: ({ row: { original: key } }) => (
        <div className="text-right">
          <Button size="sm" kind="danger" aria-label={`Revoke ${key.name}`} onClick={() => revoke(key)}>
            <Trash2 size={14} className="sm:hidden" />
            <span className="max-sm:hidden">Revoke</span>
          </Button>
        </div>
      ),
    },
  ];
}

const timeColumn = (field: "created_at" | "last_used_at", header: string, none: string): ColumnDef<Key, never> => ({
  id: field,
  accessorKey: field,
  header,
  meta: { secondary: true },
  cell: ({ row }) => <Time at={row.original[field]} none={none} />,
});

function Time({ at, none, exact = false }: { at: number | null; none: string; exact?: boolean }) {
  if (at === null) return <span className="text-faint">{none}</span>;
  return (
    <span className="whitespace-nowrap" title={when(at)}>
      {exact ? when(at) : ago(at)}
    </span>
  );
}

function ownerOf({ owner }: Key): string {
  if (owner.user) return owner.user.name;
  if (owner.service_account) return owner.service_account.name;
  return "the project";
}
