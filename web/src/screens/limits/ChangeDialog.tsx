/** How a limit of a table is changed: the button at the end of its row, and the dialog. */
import { useMutation, useQueryClient, type QueryKey } from "@tanstack/react-query";
import { Pencil } from "lucide-react";
import type { ReactNode } from "react";

import { Button } from "@/parts/Button";
import { Dialog } from "@/parts/Dialog";
import type { ColumnDef } from "@/parts/Table";
import { useToast } from "@/parts/Toast";
import { ErrorBox } from "@/parts/states";

export const changeColumn = <Row,>(nameOf: (row: Row) => string, change: (row: Row) => void): ColumnDef<Row, never> => ({
  id: "change",
  header: () => <span className="sr-only">Change</span>,
  enableSorting: false,
  cell: ({ row: { original } }) => (
    <div className="text-right">
      <Button size="sm" aria-label={`Change ${nameOf(original)}`} onClick={() => change(original)}>
        <Pencil size={13} className="sm:hidden" />
        <span className="max-sm:hidden">Change</span>
      </Button>
    </div>
  ),
});

interface ChangeDialogProps {
  title: string;
  description: string;
  /** The toast, once it is saved. */
  done: { title: string; detail: string };
  /** What then is read anew. */
  queryKey: QueryKey;
  /** Whether the fields hold a change that may be sent. */
  valid: boolean;
  save: () => Promise<unknown>;
  onClose: () => void;
  children: ReactNode;
}

export function ChangeDialog({ title, description, done, queryKey, valid, save, onClose, children }: ChangeDialogProps) {
  const queries = useQueryClient();
  const notify = useToast();
  const saving = useMutation({
    mutationFn: save,
    onSuccess: async () => {
      onClose();
      notify(done.title, { detail: done.detail });
      await queries.invalidateQueries({ queryKey });
    },
  });
  const ready = valid && !saving.isPending;
  return (
    <Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      title={title}
      description={<span className="[overflow-wrap:anywhere]">{description}</span>}
      footer={
        <>
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="primary" type="submit" form="limits" disabled={!ready} busy={saving.isPending}>
            Save
          </Button>
        </>
      }
    >
      <form
        id="limits"
        className="flex flex-col gap-4"
        onSubmit={(event) => {
          event.preventDefault();
          if (ready) saving.mutate();
        }}
      >
        {children}
        {saving.isError && <ErrorBox error={saving.error} />}
      </form>
    </Dialog>
  );
}
