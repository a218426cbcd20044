import clsx from "clsx";
import { Tabs } from "radix-ui";
import type { ReactNode } from "react";

interface Tab {
  value: string;
  label: ReactNode;
}

interface TabBarProps {
  label: string;
  value: string;
  onChange: (value: string) => void;
  tabs: Tab[];
  small?: boolean;
  children?: ReactNode;
}

/** Tabs whose content the caller renders for the chosen `value`, as `children`. */
export function TabBar({ label, value, onChange, tabs, small = false, children }: TabBarProps) {
  return (
    <Tabs.Root value={value} onValueChange={onChange}>
      <Tabs.List
        aria-label={label}
        className={clsx("flex gap-1 overflow-x-auto", small ? "" : "border-b border-line")}
      >
        {tabs.map((tab) => (
          <Tabs.Trigger
            key={tab.value}
            value={tab.value}
            className={clsx(
              "shrink-0 font-medium whitespace-nowrap text-soft transition-colors hover:text-ink focus-visible:-outline-offset-2",
              small
                ? "rounded-md px-2 py-1 text-xs data-[state=active]:bg-sunken data-[state=active]:text-ink"
                : "-mb-px flex items-center gap-1.5 border-b-2 border-transparent px-3 py-2.5 text-sm data-[state=active]:border-accent data-[state=active]:text-ink",
            )}
          >
            {tab.label}
          </Tabs.Trigger>
        ))}
      </Tabs.List>
      <Tabs.Content value={value} tabIndex={-1} className={small ? "" : "pt-6"}>
        {children}
      </Tabs.Content>
    </Tabs.Root>
  );
}
