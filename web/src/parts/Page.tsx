import clsx from "clsx";
import { useEffect, type ReactNode } from "react";

interface PageProps {
  title: string;
  /** Left of the title, small: where this page hangs. */
  above?: ReactNode;
  subtitle?: ReactNode;
  actions?: ReactNode;
  /** Uses the whole width, for tables and charts. */
  wide?: boolean;
  children: ReactNode;
}

/** A screen's frame: its title in the document and on the page, its actions at the right. */
export function Page({ title, above, subtitle, actions, wide = false, children }: PageProps) {
  useEffect(() => {
    document.title = `${title} · Tunesmith`;
  }, [title]);
  return (
    <div className={clsx("mx-auto w-full px-4 pt-6 pb-16 sm:px-8", wide ? "max-w-[110rem]" : "max-w-6xl")}>
      <header className="mb-6 flex flex-wrap items-end justify-between gap-x-6 gap-y-3">
        <div className="min-w-0">
          {above && <div className="mb-1 text-sm text-faint">{above}</div>}
          <h1 className="text-2xl font-semibold tracking-tight [overflow-wrap:anywhere]">{title}</h1>
          {subtitle && <div className="mt-1 text-sm text-soft">{subtitle}</div>}
        </div>
        {actions && <div className="flex flex-wrap items-center gap-2">{actions}</div>}
      </header>
      {children}
    </div>
  );
}

export function Card({ title, actions, className, children }: { title?: ReactNode; actions?: ReactNode; className?: string; children: ReactNode }) {
  return (
    <section className={clsx("min-w-0 rounded-xl border border-line bg-surface", className)}>
      {(title !== undefined || actions !== undefined) && (
        <div className="flex min-h-12 flex-wrap items-center justify-between gap-2 px-5 pt-3">
          <h2 className="text-sm font-semibold">{title}</h2>
          {actions}
        </div>
      )}
      <div className="px-5 pt-2 pb-5">{children}</div>
    </section>
  );
}
