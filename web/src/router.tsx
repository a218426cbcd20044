/** Every screen and its URL; a screen's code is loaded when it is first opened. */
import { createRootRoute, createRoute, createRouter, lazyRouteComponent, Link, Outlet } from "@tanstack/react-router";

import { Empty, ErrorBox } from "@/parts/states";
import { Page } from "@/parts/Page";
import { Shell } from "@/shell/Shell";

const root = createRootRoute({ component: Outlet, notFoundComponent: NotFound });
const signIn = createRoute({
  getParentRoute: () => root,
  path: "/signin",
  validateSearch: (search: Record<string, unknown>): { back?: string } => text(search, "back"),
  component: lazyRouteComponent(() => import("@/screens/signin/SignIn"), "SignIn"),
});
const shell = createRoute({ getParentRoute: () => root, id: "shell", component: Shell });

const home = createRoute({
  getParentRoute: () => shell,
  path: "/",
  component: lazyRouteComponent(() => import("@/screens/home/Home"), "Home"),
});
const data = createRoute({
  getParentRoute: () => shell,
  path: "/data",
  validateSearch: (search: Record<string, unknown>): { upload?: boolean; show?: "results" } => ({
    ...(search["upload"] ? { upload: true } : {}),
    ...(search["show"] === "results" ? { show: "results" } : {}),
  }),
  component: lazyRouteComponent(() => import("@/screens/data/Data"), "Data"),
});

export type DatasetTab = "report" | "explore" | "tokens" | "stats" | "split";
export interface DatasetSearch {
  tab?: DatasetTab;
  /** The row in view, from 1. */
  row?: number;
  /** Rows with this finding only. */
  code?: string;
  /** Rows that hold this text only. */
  text?: string;
  /** Rows of this length only, in characters or in the base's tokens. */
  min?: string;
  max?: string;
  unit?: string;
  base?: string;
}
const dataset = createRoute({
  getParentRoute: () => shell,
  path: "/data/$fileId",
  validateSearch: (search: Record<string, unknown>): DatasetSearch => ({
    ...text(search, "tab", "code", "text", "base", "unit", "min", "max"),
    ...number(search, "row"),
  }),
  component: lazyRouteComponent(() => import("@/screens/dataset/Dataset"), "Dataset"),
});

const jobs = createRoute({
  getParentRoute: () => shell,
  path: "/jobs",
  component: lazyRouteComponent(() => import("@/screens/jobs/Jobs"), "Jobs"),
});
const newJob = createRoute({
  getParentRoute: () => shell,
  path: "/jobs/new",
  validateSearch: (search: Record<string, unknown>): { file?: string; validation?: string; model?: string; from?: string } =>
    text(search, "file", "validation", "model", "from"),
  component: lazyRouteComponent(() => import("@/screens/newjob/NewJob"), "NewJob"),
});
export interface JobSearch {
  tab?: string;
  /** The row in view, from 1. */
  row?: number;
  /** What the examples are sorted by. */
  order?: string;
  /** The model that scores the row in view. */
  by?: string;
}
const job = createRoute({
  getParentRoute: () => shell,
  path: "/jobs/$jobId",
  validateSearch: (search: Record<string, unknown>): JobSearch => ({
    ...text(search, "tab", "order", "by"),
    ...number(search, "row"),
  }),
  component: lazyRouteComponent(() => import("@/screens/job/Job"), "Job"),
});
const compare = createRoute({
  getParentRoute: () => shell,
  path: "/compare",
  validateSearch: (search: Record<string, unknown>): { jobs?: string } => text(search, "jobs"),
  component: lazyRouteComponent(() => import("@/screens/compare/Compare"), "Compare"),
});
const models = createRoute({
  getParentRoute: () => shell,
  path: "/models",
  validateSearch: (search: Record<string, unknown>): { model?: string } => text(search, "model"),
  component: lazyRouteComponent(() => import("@/screens/models/Models"), "Models"),
});
export interface PlaygroundSearch {
  /** Names with commas between: a column each. */
  models?: string;
  view?: string;
  separate?: string;
  temperature?: string;
  top_p?: string;
  max?: string;
  seed?: string;
  stop?: string;
  frequency?: string;
  presence?: string;
}
const playground = createRoute({
  getParentRoute: () => shell,
  path: "/playground",
  validateSearch: (search: Record<string, unknown>): PlaygroundSearch => ({
    ...text(search, "models", "view", "separate", "temperature", "top_p", "max", "seed", "stop", "frequency", "presence"),
    ...(typeof search["model"] === "string" && search["models"] === undefined ? { models: search["model"] } : {}),
  }),
  component: lazyRouteComponent(() => import("@/screens/playground/Playground"), "Playground"),
});
const settings = createRoute({
  getParentRoute: () => shell,
  path: "/settings",
  component: lazyRouteComponent(() => import("@/screens/settings/Settings"), "Settings"),
});
const evals = createRoute({
  getParentRoute: () => shell,
  path: "/evals",
  component: lazyRouteComponent(() => import("@/screens/later/Later"), "Evals"),
});
const usage = createRoute({
  getParentRoute: () => shell,
  path: "/usage",
  validateSearch: (search: Record<string, unknown>): { project?: string } => text(search, "project"),
  component: lazyRouteComponent(() => import("@/screens/usage/Usage"), "Usage"),
});
const limits = createRoute({
  getParentRoute: () => shell,
  path: "/limits",
  validateSearch: (search: Record<string, unknown>): { project?: string } => text(search, "project"),
  component: lazyRouteComponent(() => import("@/screens/limits/Limits"), "Limits"),
});

export const router = createRouter({
  routeTree: root.addChildren([
    signIn,
    shell.addChildren([home, data, dataset, jobs, newJob, job, compare, models, playground, settings, evals, usage, limits]),
  ]),
  defaultPreload: "intent",
  scrollRestoration: true,
  defaultErrorComponent: ({ error, reset }) => (
    <Page title="Something went wrong">
      <ErrorBox error={error} retry={reset} />
    </Page>
  ),
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}

function NotFound() {
  return (
    <Page title="Not found">
      <Empty title="There is nothing at this address" action={<Link to="/" className="text-accent underline">Go home</Link>}>
        It may have been deleted, or the link is incomplete.
      </Empty>
    </Page>
  );
}

type TextOf<Name extends string> = { [Key in Name]?: string };

/** Of the search the named entries that are texts (the router reads "?x=1" as a number). */
function text<Name extends string>(search: Record<string, unknown>, ...names: Name[]): TextOf<Name> & { tab?: DatasetTab } {
  const found: Record<string, string> = {};
  for (const name of names) {
    const value = search[name];
    if (typeof value === "string" || typeof value === "number") found[name] = String(value);
  }
  return found as TextOf<Name> & { tab?: DatasetTab };
}

function number(search: Record<string, unknown>, name: "row"): { row?: number } {
  const value = Number(search[name]);
  return Number.isInteger(value) && value > 0 ? { row: value } : {};
}
