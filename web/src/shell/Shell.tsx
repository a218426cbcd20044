/** The frame around every screen: navigation at the left, on narrow screens behind a button. */
import { useQuery } from "@tanstack/react-query";
import { Link, Outlet, useNavigate, useRouterState } from "@tanstack/react-router";
import clsx from "clsx";
import { LogOut, Menu as MenuIcon, Moon, Search, Sun, X } from "lucide-react";
import { lazy, Suspense, useEffect, useState } from "react";

import { SIGNED_OUT } from "@/api/client";
import { statusQuery } from "@/api/queries";
import { signOut } from "@/api/session";
import { IconButton } from "@/parts/Button";

import { useHotkeys } from "./hotkeys";
import { PLACES, type Place } from "./places";
import { useTheme } from "./theme";

const Palette = lazy(() => import("./Palette"));

export function Shell() {
  const [isOpen, setOpen] = useState(false);
  const [palette, setPalette] = useState(false);
  const path = useRouterState({ select: (state) => state.location.pathname });
  const navigate = useNavigate();
  useEffect(() => setOpen(false), [path]);
  useEffect(() => {
    const leave = () => void navigate({ to: "/signin", search: { back: window.location.pathname + window.location.search } });
    window.addEventListener(SIGNED_OUT, leave);
    return () => window.removeEventListener(SIGNED_OUT, leave);
  }, [navigate]);
  useHotkeys(() => setPalette(true));
  return (
    <div className="min-h-dvh lg:grid lg:grid-cols-[15rem_minmax(0,1fr)]">
      <a href="#main" className="sr-only z-50 rounded-lg bg-accent px-3 py-2 text-on-accent focus:not-sr-only focus:fixed focus:top-2 focus:left-2">
        Skip to content
      </a>
      <div className="sticky top-0 z-30 flex h-13 items-center gap-2 border-b border-line bg-ground px-3 lg:hidden">
        <IconButton label={isOpen ? "Close navigation" : "Open navigation"} aria-expanded={isOpen} onClick={() => setOpen(!isOpen)}>
          {isOpen ? <X size={18} /> : <MenuIcon size={18} />}
        </IconButton>
        <Brand />
        <IconButton label="Search and commands" className="ml-auto" onClick={() => setPalette(true)}>
          <Search size={17} />
        </IconButton>
      </div>
      <Navigation isOpen={isOpen} onSearch={() => setPalette(true)} />
      {isOpen && <div aria-hidden className="fixed inset-0 top-13 z-10 bg-veil lg:hidden" onClick={() => setOpen(false)} />}
      <main id="main" tabIndex={-1} className="min-w-0 outline-none">
        <Outlet />
      </main>
      <Suspense>{palette && <Palette onClose={() => setPalette(false)} />}</Suspense>
    </div>
  );
}

function Brand() {
  return (
    <Link to="/" className="flex items-center gap-2.5 rounded-lg font-semibold tracking-tight">
      <img src="/favicon.svg" alt="" width={22} height={22} />
      Tunesmith
    </Link>
  );
}

function Navigation({ isOpen, onSearch }: { isOpen: boolean; onSearch: () => void }) {
  return (
    <nav
      aria-label="Main"
      className={clsx(
        "z-20 flex flex-col gap-5 border-line bg-ground px-3 py-4 lg:sticky lg:top-0 lg:h-dvh lg:border-r",
        "max-lg:fixed max-lg:top-13 max-lg:bottom-0 max-lg:left-0 max-lg:w-64 max-lg:overflow-y-auto max-lg:border-r",
        !isOpen && "max-lg:hidden",
      )}
    >
      <div className="px-2 pt-1 max-lg:hidden">
        <Brand />
      </div>
      <button
        type="button"
        onClick={onSearch}
        className="flex h-9 items-center gap-2 rounded-lg border border-line bg-surface px-2.5 text-sm text-faint hover:text-ink"
      >
        <Search size={15} />
        Search
        <kbd className="ml-auto rounded border border-line px-1.5 font-sans text-xs">Ctrl K</kbd>
      </button>
      <PlaceList group="work" />
      <div className="mt-auto flex flex-col gap-3">
        <PlaceList group="server" />
        <Foot />
      </div>
    </nav>
  );
}

function PlaceList({ group }: { group: Place["group"] }) {
  return (
    <ul className="flex flex-col gap-0.5">
      {PLACES.filter((place) => place.group === group).map(({ to, label, icon: Icon }) => (
        <li key={to}>
          <Link
            to={to}
            activeOptions={{ exact: to === "/", includeSearch: false }}
            className="flex h-8.5 items-center gap-2.5 rounded-lg px-2.5 text-sm font-medium text-soft transition-colors hover:bg-hover hover:text-ink aria-[current=page]:bg-accent-wash aria-[current=page]:text-accent"
          >
            <Icon size={16} aria-hidden />
            {label}
          </Link>
        </li>
      ))}
    </ul>
  );
}

function Foot() {
  const { theme, setTheme } = useTheme();
  const { data } = useQuery(statusQuery);
  const navigate = useNavigate();
  const leave = async () => {
    await signOut();
    await navigate({ to: "/signin", search: {} });
  };
  return (
    <div className="flex items-center gap-1 border-t border-line pt-3 pl-2.5">
      <span className="mr-auto truncate text-xs text-faint">{data ? `${data.organization} · ${data.version}` : ""}</span>
      <IconButton label={theme === "dark" ? "Light theme" : "Dark theme"} onClick={() => setTheme(theme === "dark" ? "light" : "dark")}>
        {theme === "dark" ? <Sun size={16} /> : <Moon size={16} />}
      </IconButton>
      <IconButton label="Sign out" onClick={() => void leave()}>
        <LogOut size={16} />
      </IconButton>
    </div>
  );
}
