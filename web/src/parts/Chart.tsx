/** A line chart on a canvas (uPlot): hover, drag to zoom, double click to see all again. */
import "uplot/dist/uPlot.min.css";
import { useEffect, useRef } from "react";
import uPlot from "uplot";

import { useTheme } from "@/shell/theme";

export interface Line {
  label: string;
  /** A custom property of theme.css, such as "--c-accent". */
  color: string;
  values: (number | null)[];
  dash?: number[];
  scale?: "left" | "right";
  points?: boolean;
}

interface ChartProps {
  label: string;
  x: number[];
  lines: Line[];
  height?: number;
  log?: boolean;
  /** Lets a screen draw on top of the canvas: flags, marks. */
  draw?: (plot: uPlot) => void;
}

const colorOf = (name: string): string =>
  name.startsWith("--") ? getComputedStyle(document.documentElement).getPropertyValue(name).trim() : name;

export function Chart({ label, x, lines, height = 280, log = false, draw }: ChartProps) {
  const holder = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const drawing = useRef(draw);
  drawing.current = draw;
  const { theme } = useTheme();
  const shape = JSON.stringify([lines.map(({ values: _, ...rest }) => rest), height, log, theme]);
  const data: uPlot.AlignedData = [x, ...lines.map((line) => line.values)];
  const latest = useRef(data);
  latest.current = data;
  const drawn = useRef(lines);
  drawn.current = lines;

  useEffect(() => {
    const element = holder.current;
    if (!element) return;
    const made = new uPlot(
      options(drawn.current, element.clientWidth, height, log, (each) => drawing.current?.(each)),
      latest.current,
      element,
    );
    plot.current = made;
    const watcher = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    watcher.observe(element);
    return () => {
      watcher.disconnect();
      made.destroy();
      plot.current = null;
    };
    // `shape` stands for the lines without their values, which setData() changes alone.
  }, [shape, height, log]);

  useEffect(() => {
    const made = plot.current;
    if (!made) return;
    const { min, max } = made.scales["x"] ?? {};
    const before = made.data[0];
    const zoomed = before.length > 1 && (min !== before[0] || max !== before[before.length - 1]);
    made.setData(latest.current, !zoomed);
    if (zoomed) made.redraw();
  }, [x, lines]);

  return <div ref={holder} role="img" aria-label={label} className="w-full min-w-0" />;
}

function options(lines: Line[], width: number, height: number, log: boolean, draw: (plot: uPlot) => void): uPlot.Options {
  const axis = {
    stroke: colorOf("--c-faint"),
    grid: { stroke: colorOf("--c-line"), width: 1 },
    ticks: { show: false },
    font: '11px "Inter Variable", sans-serif',
  };
  const hasRight = lines.some((line) => line.scale === "right");
  return {
    width,
    height,
    scales: { x: { time: false }, left: { distr: log ? 3 : 1 }, right: { range: [0, 1] } },
    axes: [
      axis,
      { ...axis, scale: "left", size: 52 },
      ...(hasRight ? [{ ...axis, scale: "right", side: 1 as const, grid: { show: false }, size: 46 }] : []),
    ],
    series: [
      { label: "step" },
      ...lines.map((line) => ({
        label: line.label,
        scale: line.scale ?? "left",
        stroke: colorOf(line.color),
        width: 1.5,
        spanGaps: true,
        points: { show: line.points ?? false, size: 5 },
        ...(line.dash ? { dash: line.dash } : {}),
      })),
    ],
    cursor: { drag: { x: true, y: false } },
    hooks: { draw: [draw] },
  };
}
