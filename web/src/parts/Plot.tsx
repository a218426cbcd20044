/** Curves over steps on a canvas: drag to zoom, wheel to zoom, shift-drag or the wheel's tilt to pan, double click for all. */
import "uplot/dist/uPlot.min.css";
import { useEffect, useRef } from "react";
import uPlot from "uplot";

import { useTheme } from "@/shell/theme";
import { indexAt, packed, thinned, type Values } from "@/lib/curve";

export interface Curve {
  label: string;
  /** A custom property of theme.css, such as "--c-accent". */
  color: string;
  values: Values;
  faint?: boolean;
  points?: boolean;
  dash?: number[];
  width?: number;
  /** Lies within another curve, whose points are enough for it where there are many. */
  follows?: boolean;
}

export interface Flag {
  x: number;
  label: string;
  isBest?: boolean;
}

interface PlotProps {
  label: string;
  x: number[];
  curves: Curve[];
  height: number;
  log?: boolean;
  /** Charts with the same name move together. */
  sync: string;
  range?: [number, number];
  flags?: Flag[];
  format: (value: number) => string;
}

const colorOf = (name: string, alpha = 1): string => {
  const color = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return alpha === 1 ? color : `color-mix(in srgb, ${color} ${alpha * 100}%, transparent)`;
};

const ZOOM = 0.8;
// Columns that a curve is thinned to: about the pixels of a wide screen.
const BINS = 1500;
const MAX_POINTS = 4 * BINS;
// While it moves a large plot is drawn coarser: most of a frame's time goes into painting lines.
const MOVING_BINS = 300;
const MOVING_WIDTH = 1;
const SETTLED_MS = 120;

/** All points of a plot, and as many of them as can be seen. */
class Source {
  private readonly series: Float64Array[] | null;
  readonly low: number;
  readonly high: number;

  constructor(
    private readonly x: number[],
    private readonly values: Values[],
    /** Curves that need no points of their own. */
    follows: boolean[],
  ) {
    this.series = x.length > MAX_POINTS ? values.filter((_, index) => !follows[index]).map(packed) : null;
    this.low = x[0] ?? 0;
    this.high = x[x.length - 1] ?? 1;
  }

  whole(): uPlot.AlignedData {
    return this.between(this.low, this.high);
  }

  isPart(min: number, max: number): boolean {
    return min > this.low || max < this.high;
  }

  get isLarge(): boolean {
    return this.series !== null;
  }

  /** The points to draw of this part, with one more at each end. */
  between(min: number, max: number, bins = BINS): uPlot.AlignedData {
    if (this.series === null) return [this.x, ...this.values];
    const from = Math.max(0, indexAt(this.x, min) - 1);
    const to = Math.min(this.x.length, indexAt(this.x, max) + 2);
    const kept = to - from > 4 * bins ? thinned(this.series, from, to, bins) : null;
    const part = <Value,>(all: Value[]): Value[] => (kept ? kept.map((index) => all[index] as Value) : all.slice(from, to));
    return [part(this.x), ...this.values.map(part)];
  }
}

const sources = new WeakMap<uPlot, Source>();

/** A new one whenever an array is another; curves come and go, so no list of dependencies fits. */
function useSource(x: number[], curves: Curve[]): Source {
  const kept = useRef<{ arrays: unknown[]; source: Source } | null>(null);
  const values = curves.map((curve) => curve.values);
  const arrays = [x, ...values];
  const last = kept.current;
  if (last !== null && last.arrays.length === arrays.length && arrays.every((each, index) => each === last.arrays[index])) return last.source;
  const source = new Source(x, values, curves.map((curve) => curve.follows ?? false));
  kept.current = { arrays, source };
  return source;
}

export function Plot({ label, x, curves, height, log = false, sync, range, flags = [], format }: PlotProps) {
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const { theme } = useTheme();
  const shape = JSON.stringify([curves.map(({ values: _, ...rest }) => rest), height, log, theme, sync, range]);
  const source = useSource(x, curves);
  const now = useRef({ source, curves, flags, format });
  now.current = { source, curves, flags, format };

  useEffect(() => {
    const element = holder.current;
    if (!element) return;
    const made = new uPlot(
      options(now.current.curves, element.clientWidth, height, log, sync, range, () => now.current.flags, format),
      now.current.source.whole(),
      element,
    );
    plot.current = made;
    sources.set(made, now.current.source);
    showLast(made);
    const stop = wheel(made);
    const watcher = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    watcher.observe(element);
    return () => {
      stop();
      watcher.disconnect();
      made.destroy();
      plot.current = null;
    };
    // `shape` stands for everything but the values, which setData() changes alone.
  }, [shape]);

  useEffect(() => {
    const made = plot.current;
    if (!made) return;
    const before = sources.get(made);
    if (before === source) return;
    const { min, max } = made.scales["x"] ?? {};
    sources.set(made, source);
    if (before && typeof min === "number" && typeof max === "number" && before.isPart(min, max)) {
      show(made, min, max);
    } else {
      made.setData(source.whole(), true);
    }
    showLast(made);
  }, [source]);

  useEffect(() => plot.current?.redraw(false), [flags]);

  return <div ref={holder} role="img" aria-label={label} className="plot w-full min-w-0" />;
}

function options(
  curves: Curve[],
  width: number,
  height: number,
  log: boolean,
  sync: string,
  range: [number, number] | undefined,
  flags: () => Flag[],
  format: (value: number) => string,
): uPlot.Options {
  const axis = {
    stroke: colorOf("--c-faint"),
    grid: { stroke: colorOf("--c-line"), width: 1 },
    ticks: { show: false },
    font: '11px "Inter Variable", sans-serif',
  };
  return {
    width,
    height,
    padding: [20, 12, 4, 0],
    scales: { x: { time: false }, y: { distr: log ? 3 : 1, ...(range ? { range } : {}) } },
    axes: [
      { ...axis, size: 32, grid: { show: false }, values: (_, splits) => splits.map((value) => (Number.isInteger(value) ? String(value) : "")) },
      { ...axis, size: 48, ...(log ? {} : { values: (_: uPlot, splits: number[]) => splits.map((value) => format(value)) }) },
    ],
    series: [
      { label: "step" },
      ...curves.map((curve) => ({
        label: curve.label,
        stroke: colorOf(curve.color, curve.faint ? 0.4 : 1),
        width: curve.width ?? (curve.faint ? 1 : 1.75),
        spanGaps: true,
        points: curve.points ? { show: true, size: 6, fill: colorOf("--c-surface"), stroke: colorOf(curve.color), width: 2 } : { show: false },
        value: (_: uPlot, value: number | null) => (value === null || value === undefined ? "–" : format(value)),
        ...(curve.dash ? { dash: curve.dash } : {}),
      })),
    ],
    legend: { live: true, markers: { fill: (_, index) => colorOf(curves[index - 1]?.color ?? "--c-faint", curves[index - 1]?.faint ? 0.45 : 1) } },
    cursor: { drag: { x: true, y: false, setScale: false }, bind: { dblclick: (plot) => () => (showAll(plot), null) }, y: false, sync: { key: sync, scales: ["x", null], filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } }, points: { size: 7 }, focus: { prox: 24 } },
    hooks: { draw: [(plot) => drawFlags(plot, flags())], setCursor: [showLast], setSelect: [select] },
  };
}

function drawFlags(plot: uPlot, flags: Flag[]): void {
  const { ctx, bbox } = plot;
  const ratio = uPlot.pxRatio;
  ctx.save();
  ctx.font = `600 ${10 * ratio}px "Inter Variable", sans-serif`;
  ctx.textAlign = "center";
  let taken = -Infinity;
  for (const flag of flags) {
    const x = plot.valToPos(flag.x, "x", true);
    if (x < bbox.left - 1 || x > bbox.left + bbox.width + 1) continue;
    const color = colorOf(flag.isBest ? "--c-good" : "--c-line-strong");
    ctx.strokeStyle = color;
    ctx.fillStyle = color;
    ctx.lineWidth = ratio;
    ctx.setLineDash([3 * ratio, 3 * ratio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const half = ctx.measureText(flag.label).width / 2;
    const middle = Math.min(Math.max(x, bbox.left + half), bbox.left + bbox.width - half);
    if (middle - half < taken + 6 * ratio && !flag.isBest) continue;
    taken = middle + half;
    ctx.fillText(flag.label, middle, bbox.top - 6 * ratio);
  }
  ctx.restore();
}

/** The newest values, where the pointer names no others. */
function showLast(plot: uPlot): void {
  if (plot.cursor.idx !== null && plot.cursor.idx !== undefined) return;
  const idxs = plot.data.map((values, series) => {
    if (series === 0) return values.length - 1;
    for (let index = values.length - 1; index >= 0; index -= 1) if (values[index] !== null && values[index] !== undefined) return index;
    return null;
  });
  plot.setLegend({ idxs }, false);
}

/** Shows what was marked by dragging. */
function select(plot: uPlot): void {
  const { left, width } = plot.select;
  if (width < 4) return;
  show(plot, plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
  plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
}

function showAll(plot: uPlot): void {
  const source = sources.get(plot);
  if (source) show(plot, source.low, source.high);
}

/** Zooms around the pointer, or pans with shift or a sideways wheel. */
function wheel(plot: uPlot): () => void {
  const over = plot.over;
  const onWheel = (event: WheelEvent) => {
    const { min, max } = plot.scales["x"] ?? {};
    if (min === undefined || max === undefined || min === null || max === null) return;
    if (!event.ctrlKey && !event.shiftKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
    event.preventDefault();
    const { low, high } = sources.get(plot) ?? { low: min, high: max };
    let from: number;
    let to: number;
    if (event.ctrlKey) {
      const at = plot.posToVal(event.offsetX, "x");
      const factor = event.deltaY < 0 ? ZOOM : 1 / ZOOM;
      from = at - (at - min) * factor;
      to = at + (max - at) * factor;
    } else {
      const shift = ((event.deltaX || event.deltaY) / over.clientWidth) * (max - min);
      from = min + shift;
      to = max + shift;
      if (from < low) [from, to] = [low, low + max - min];
      if (to > high) [from, to] = [high - (max - min), high];
    }
    glide(plot, Math.max(from, low), Math.min(to, high));
  };
  const onDown = (event: PointerEvent) => {
    if (!event.shiftKey && event.button !== 1) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const { min, max } = plot.scales["x"] ?? {};
    if (min === undefined || max === undefined || min === null || max === null) return;
    const start = event.clientX;
    const { low, high } = sources.get(plot) ?? { low: min, high: max };
    over.setPointerCapture(event.pointerId);
    let frame = 0;
    let at = start;
    const onMove = (move: PointerEvent) => {
      at = move.clientX;
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        const shift = ((start - at) / over.clientWidth) * (max - min);
        const bounded = Math.min(Math.max(shift, low - min), high - max);
        glide(plot, min + bounded, max + bounded);
      });
    };
    const onUp = () => {
      over.removeEventListener("pointermove", onMove);
      over.removeEventListener("pointerup", onUp);
    };
    over.addEventListener("pointermove", onMove);
    over.addEventListener("pointerup", onUp);
  };
  const onMouseDown = (event: MouseEvent) => {
    // uPlot would begin to select.
    if (event.shiftKey || event.button === 1) event.stopImmediatePropagation();
  };
  over.addEventListener("wheel", onWheel, { passive: false });
  over.addEventListener("pointerdown", onDown, true);
  over.addEventListener("mousedown", onMouseDown, true);
  return () => {
    over.removeEventListener("wheel", onWheel);
    over.removeEventListener("pointerdown", onDown, true);
    over.removeEventListener("mousedown", onMouseDown, true);
  };
}

const settling = new WeakMap<uPlot, ReturnType<typeof setTimeout>>();

/** Shows a part of x that will be another in a moment; in full detail once it rests. */
function glide(plot: uPlot, min: number, max: number): void {
  clearTimeout(settling.get(plot));
  if (!sources.get(plot)?.isLarge) {
    show(plot, min, max);
    return;
  }
  show(plot, min, max, true);
  settling.set(
    plot,
    setTimeout(() => show(plot, min, max), SETTLED_MS),
  );
}

/** Shows a part of x, also in the charts that move with this one. */
function show(plot: uPlot, min: number, max: number, isMoving = false): void {
  if (max - min < 1) return;
  const key = plot.cursor.sync?.key;
  const together = key === undefined ? [plot] : uPlot.sync(key).plots;
  for (const each of together) {
    const source = sources.get(each);
    each.series.forEach((series) => {
      const own = widths.get(series) ?? series.width ?? 1;
      widths.set(series, own);
      series.width = isMoving ? Math.min(own, MOVING_WIDTH) : own;
    });
    each.batch(() => {
      if (source) each.setData(source.between(min, max, isMoving ? MOVING_BINS : BINS), false);
      each.setScale("x", { min, max });
    });
  }
}

const widths = new WeakMap<uPlot.Series, number>();
