/** Only the rows in view exist in the page, so that 100,000 of them scroll like twenty. */
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef, type ReactNode } from "react";

interface VirtualListProps {
  label: string;
  numRows: number;
  rowHeight: number;
  /** Rows differ in height and are measured when they come into view. */
  measured?: boolean;
  /** Scrolled to when it changes. */
  focus?: number | null;
  onRange?: (first: number, last: number) => void;
  className?: string;
  children: (index: number) => ReactNode;
}

export function VirtualList({ label, numRows, rowHeight, measured = false, focus = null, onRange, className = "h-[70dvh]", children }: VirtualListProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: numRows,
    getScrollElement: () => scroller.current,
    estimateSize: () => rowHeight,
    overscan: 12,
  });
  const items = virtual.getVirtualItems();
  const first = items[0]?.index ?? 0;
  const last = items[items.length - 1]?.index ?? 0;
  const report = useRef(onRange);
  useEffect(() => {
    report.current = onRange;
  });
  useEffect(() => report.current?.(first, last), [first, last]);
  useEffect(() => {
    if (focus !== null && focus < numRows) virtual.scrollToIndex(focus, { align: "auto" });
  }, [focus, numRows, virtual]);
  return (
    <div ref={scroller} role="list" aria-label={label} tabIndex={0} className={`overflow-auto ${className}`}>
      <div className="relative w-full" style={{ height: virtual.getTotalSize() }}>
        {items.map((item) => (
          <div
            key={item.key}
            role="listitem"
            data-index={item.index}
            ref={measured ? virtual.measureElement : undefined}
            className="absolute top-0 left-0 w-full"
            style={{ transform: `translateY(${item.start}px)`, ...(measured ? {} : { height: item.size }) }}
          >
            {children(item.index)}
          </div>
        ))}
      </div>
    </div>
  );
}
