/** What happened to a job, newest first. */
import { useQuery } from "@tanstack/react-query";
import { CircleAlert, Info, TriangleAlert } from "lucide-react";
import { useState } from "react";

import { eventsQuery, type JobNow } from "@/api/jobs";
import { SwitchField } from "@/parts/fields";
import { VirtualList } from "@/parts/VirtualList";
import { Empty, ErrorBox, Loading } from "@/parts/states";
import { count } from "@/lib/format";

const ROW_HEIGHT = 36;

export function Events({ now }: { now: JobNow }) {
  const events = useQuery(eventsQuery(now.id));
  const [steps, setSteps] = useState(false);
  if (events.isPending) return <Loading lines={8} />;
  if (events.isError) return <ErrorBox error={events.error} retry={() => void events.refetch()} />;
  const all = events.data.data;
  const shown = steps ? all : all.filter((event) => event.type === "message");
  return (
    <section className="rounded-xl border border-line bg-surface">
      <div className="flex flex-wrap items-center justify-between gap-3 border-b border-line px-5 py-2.5">
        <span className="num text-sm text-soft">
          {count(shown.length)} of {count(all.length)} events{events.data.has_more ? ", the newest" : ""}
        </span>
        <SwitchField label="Each step" checked={steps} onChange={setSteps} />
      </div>
      {shown.length === 0 ? (
        <Empty title="No events yet" />
      ) : (
        <VirtualList label="Events" numRows={shown.length} rowHeight={ROW_HEIGHT} measured className="h-[62dvh]">
          {(index) => {
            const event = shown[index];
            if (!event) return null;
            return (
              <div className="grid grid-cols-[auto_1fr] gap-x-3 gap-y-0.5 border-b border-line px-5 py-2 text-sm sm:grid-cols-[auto_7.5rem_1fr]">
                <Level level={event.level} />
                <time className="num text-xs leading-5 text-faint max-sm:order-last max-sm:col-start-2" dateTime={new Date(event.created_at * 1000).toISOString()}>
                  {new Date(event.created_at * 1000).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" })}
                </time>
                <span className="min-w-0 [overflow-wrap:anywhere]">{event.message}</span>
              </div>
            );
          }}
        </VirtualList>
      )}
    </section>
  );
}

function Level({ level }: { level: string }) {
  if (level === "warn") return <TriangleAlert size={14} aria-label="Warning" className="mt-0.5 text-warn" />;
  if (level === "error") return <CircleAlert size={14} aria-label="Error" className="mt-0.5 text-bad" />;
  return <Info size={14} aria-label="Information" className="mt-0.5 text-faint" />;
}
