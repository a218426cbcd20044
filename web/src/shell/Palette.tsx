/** Everything by its name: places, actions, and this server's files, jobs and models. */
import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { Command } from "cmdk";
import { Boxes, Database, MoonStar, Plus, Upload, Activity } from "lucide-react";
import { Dialog } from "radix-ui";
import type { ReactNode } from "react";

import { filesQuery, jobsQuery, modelsQuery } from "@/api/queries";

import { PLACES } from "./places";
import { useTheme } from "./theme";

export default function Palette({ onClose }: { onClose: () => void }) {
  const navigate = useNavigate();
  const { theme, setTheme } = useTheme();
  const files = useQuery(filesQuery);
  const jobs = useQuery(jobsQuery);
  const models = useQuery(modelsQuery);
  const go = (to: string) => () => {
    onClose();
    void navigate({ href: to });
  };
  return (
    <Dialog.Root open onOpenChange={(open) => !open && onClose()}>
      <Dialog.Portal>
        <Dialog.Overlay className="fixed inset-0 z-40 bg-veil motion-safe:animate-[fade_0.12s]" />
        <Dialog.Content aria-describedby={undefined} className="fixed top-[12dvh] left-1/2 z-50 w-[calc(100vw-2rem)] max-w-xl -translate-x-1/2 overflow-hidden rounded-2xl border border-line bg-surface shadow-float">
          <Dialog.Title className="sr-only">Search and commands</Dialog.Title>
          <Command label="Search and commands" loop>
            <Command.Input
              placeholder="Go to a file, a job, a model, or do something…"
              className="h-13 w-full border-b border-line bg-transparent px-5 text-base outline-none placeholder:text-faint"
            />
            <Command.List className="max-h-[60dvh] overflow-y-auto p-2">
              <Command.Empty className="px-3 py-8 text-center text-sm text-faint">Nothing is called that.</Command.Empty>
              <Group heading="Do">
                <Item onSelect={go("/jobs/new")} icon={<Plus size={15} />} hint="c">
                  New fine-tuning job
                </Item>
                <Item onSelect={go("/data?upload=true")} icon={<Upload size={15} />}>
                  Upload a data file
                </Item>
                <Item
                  onSelect={() => {
                    setTheme(theme === "dark" ? "light" : "dark");
                    onClose();
                  }}
                  icon={<MoonStar size={15} />}
                >
                  {theme === "dark" ? "Light theme" : "Dark theme"}
                </Item>
              </Group>
              <Group heading="Go to">
                {PLACES.map(({ to, label, icon: Icon, key }) => (
                  <Item key={to} onSelect={go(to)} icon={<Icon size={15} />} hint={`g ${key}`}>
                    {label}
                  </Item>
                ))}
              </Group>
              <Group heading="Jobs">
                {(jobs.data?.data ?? []).map((job) => (
                  <Item key={job.id} value={`${job.id} ${job.model}`} onSelect={go(`/jobs/${job.id}`)} icon={<Activity size={15} />} hint={job.status}>
                    {job.id}
                  </Item>
                ))}
              </Group>
              <Group heading="Data">
                {(files.data?.data ?? []).map((file) => (
                  <Item key={file.id} value={`${file.filename} ${file.id}`} onSelect={go(`/data/${file.id}`)} icon={<Database size={15} />} hint={file.id}>
                    {file.filename}
                  </Item>
                ))}
              </Group>
              <Group heading="Models">
                {(models.data?.data ?? []).map((model) => (
                  <Item key={model.id} value={model.id} onSelect={go(`/playground?models=${encodeURIComponent(model.id)}`)} icon={<Boxes size={15} />} hint="open in playground">
                    {model.id}
                  </Item>
                ))}
              </Group>
            </Command.List>
          </Command>
        </Dialog.Content>
      </Dialog.Portal>
    </Dialog.Root>
  );
}

function Group({ heading, children }: { heading: string; children: ReactNode }) {
  if (Array.isArray(children) && children.length === 0) return null;
  return (
    <Command.Group
      heading={heading}
      className="[&_[cmdk-group-heading]]:px-3 [&_[cmdk-group-heading]]:pt-3 [&_[cmdk-group-heading]]:pb-1 [&_[cmdk-group-heading]]:text-xs [&_[cmdk-group-heading]]:text-faint"
    >
      {children}
    </Command.Group>
  );
}

function Item({ icon, hint, value, onSelect, children }: { icon: ReactNode; hint?: string; value?: string; onSelect: () => void; children: ReactNode }) {
  return (
    <Command.Item
      {...(value === undefined ? {} : { value })}
      onSelect={onSelect}
      className="flex cursor-pointer items-center gap-3 rounded-lg px-3 py-2 text-sm data-[selected=true]:bg-accent-wash"
    >
      <span className="text-faint">{icon}</span>
      <span className="min-w-0 flex-1 truncate">{children}</span>
      {hint !== undefined && <span className="max-w-44 shrink-0 truncate text-xs text-faint">{hint}</span>}
    </Command.Item>
  );
}
