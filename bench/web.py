"""How the web app feels in the machine's own Chromium: `python -m bench.web [PART ...]`.

Parts: `home` (milliseconds from nothing cached to all cards filled), `chart` (frames while a chart
of 100,000 steps is panned), `table` (frames while 100,000 rows are scrolled, and how many of them
showed a gap), `memory` (the page's heap and nodes over `--minutes` of a job watched live). A real
server with a data directory of its own; what the chart shows is written into its database.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, expect, sync_playwright

from tests.browser.rows import labels, lines
from tests.browser.server import Server, eventually
from tunesmith.ids import SystemRng
from tunesmith.store.db import open_database
from tunesmith.store.repo import events
from tunesmith.store.repo.events import NewEvent

PARTS = ("home", "chart", "table", "memory")
NUM_STEPS = NUM_ROWS = 100_000
NUM_HOMES = 9
MOVES_S = 6.0
PATIENCE_MS = 180_000
FRAME_MS = 1000 / 60

# It moves in each frame, so that each has its work. A gap is a part of the list without rows.
WATCH_FRAMES = """move => {
  const list = document.querySelector("[role=list][aria-label=Rows]");
  const over = document.querySelector(".u-over");
  const moves = {
    pan: (at) => {
      const box = over.getBoundingClientRect();
      const clientX = box.left + box.width * (0.5 + 0.35 * Math.sin(at / 40));
      over.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY: box.top + 50 }));
    },
    scroll: () => list.scrollBy(0, 40),
    jump: (at) => at % 12 || list.scrollTo(0, list.scrollHeight * ((at * 37) % 100) / 100),
  };
  window.seen = { frames_ms: [], num_gaps: 0, num_waiting: 0 };
  let last = performance.now();
  const look = (now) => {
    seen.frames_ms.push(now - last);
    last = now;
    if (list) {
      const box = list.getBoundingClientRect();
      let [top, bottom, waiting] = [Infinity, -Infinity, false];
      for (const item of list.querySelectorAll("[role=listitem]")) {
        const place = item.getBoundingClientRect();
        top = Math.min(top, place.top);
        bottom = Math.max(bottom, place.bottom);
        const inView = place.bottom > box.top && place.top < box.bottom;
        waiting ||= inView && item.querySelector(".text-soft").textContent === "…";
      }
      if (top > box.top + 1 || bottom < box.bottom - 1) seen.num_gaps++;
      if (waiting) seen.num_waiting++;
    }
    moves[move](seen.frames_ms.length);
    seen.watching = requestAnimationFrame(look);
  };
  seen.watching = requestAnimationFrame(look);
}"""


def main() -> None:
    arguments = _arguments()
    chromium = (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    )
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        server = Server(Path(scratch) / "data")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            state = signed_in(browser, server)
            for part in arguments.parts:
                if part == "home":
                    home(browser, server, state)
                elif part == "memory":
                    memory(opened(browser, server, state), server, arguments.minutes)
                else:
                    {"chart": chart, "table": table}[part](opened(browser, server, state), server)
        finally:
            browser.close()
            server.end()


def signed_in(browser: Browser, server: Server) -> Any:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{server.url}/signin")
    page.get_by_label("API key").fill(server.key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{server.url}/", timeout=PATIENCE_MS)
    state = context.storage_state()
    context.close()
    return state


def context(browser: Browser, server: Server, state: Any) -> BrowserContext:
    expect.set_options(timeout=PATIENCE_MS)
    return browser.new_context(
        base_url=server.url, storage_state=state, viewport={"width": 1440, "height": 900}
    )


def opened(browser: Browser, server: Server, state: Any) -> Page:
    page = context(browser, server, state).new_page()
    page.set_default_timeout(PATIENCE_MS)
    return page


def home(browser: Browser, server: Server, state: Any) -> None:
    """A context of its own each time: nothing of the app is cached."""
    loaded_ms, filled_ms = [], []
    for _ in range(NUM_HOMES):
        fresh = context(browser, server, state)
        page = fresh.new_page()
        started_s = time.perf_counter()
        page.goto("/", wait_until="commit")
        page.get_by_role("button", name="Copy").first.wait_for()
        loaded_ms.append((time.perf_counter() - started_s) * 1000)
        expect(page.locator("[role=status][aria-label], [aria-busy=true]")).to_have_count(0)
        filled_ms.append((time.perf_counter() - started_s) * 1000)
        fresh.close()
    for name, found in (("first button", loaded_ms), ("all filled", filled_ms)):
        print(f"home, {name}: median {median(found):.0f} ms, worst {max(found):.0f}", flush=True)


def chart(page: Page, server: Server) -> None:
    client = server.client
    content = ("few.jsonl", lines(labels(20)))
    file = client.files.create(file=content, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model="tunesmith-nano",
        training_file=file.id,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
    )
    ended = lambda: client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"  # noqa: E731
    eventually(ended, 120)
    add_steps(server.data, job.id)
    page.goto(f"/jobs/{job.id}")
    over = page.locator(".u-over").first
    over.wait_for()
    page.wait_for_timeout(2000)
    box = over.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    # Half of the steps, so that there is where to go.
    page.mouse.move(box["x"] + box["width"] * 0.25, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, middle, steps=5)
    page.mouse.up()
    page.wait_for_timeout(1000)
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + box["width"] * 0.5, middle)
    page.mouse.down()
    tell_frames(page, f"chart of {NUM_STEPS:,} steps, panned", "pan")
    page.mouse.up()
    page.keyboard.up("Shift")
    page.close()


def add_steps(data: Path, job_id: str) -> None:
    db = open_database(data)
    with db.read() as conn:
        like = events.metrics(conn, job_id)[-1][1]
    new = []
    for step in range(int(like["step"]) + 1, NUM_STEPS + 1):
        wave = 2.0 / (1 + step / 5000) + (step * 7919 % 1000) / 2000
        figures = like | {"step": step, "total_steps": NUM_STEPS, "train_loss": wave}
        new.append(NewEvent(f"bench-{step}", f"Step {step}", 0, type="metrics", data=figures))
    for start in range(0, len(new), 5000):
        with db.write() as conn:
            events.append(conn, SystemRng(), job_id, new[start : start + 5000])
    db.close()


def table(page: Page, server: Server) -> None:
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(lines(labels(NUM_ROWS)))
        file.flush()
        uploaded = server.client.files.create(file=Path(file.name), purpose="fine-tune")
    page.goto(f"/data/{uploaded.id}?tab=explore")
    rows = page.get_by_role("list", name="Rows")
    rows.wait_for()
    rows.get_by_role("listitem").first.wait_for()
    # The report of so many rows goes on in the background, and would be measured too.
    eventually(lambda: page.get_by_label("Finding").locator("option").count() > 0, 180)
    page.wait_for_timeout(3000)
    tell_frames(page, f"table of {NUM_ROWS:,} rows, scrolled", "scroll")
    tell_frames(page, "the same, jumping five times a second", "jump")
    page.close()


def tell_frames(page: Page, what: str, move: str) -> None:
    page.evaluate(WATCH_FRAMES, move)
    page.wait_for_timeout(MOVES_S * 1000)
    page.evaluate("cancelAnimationFrame(seen.watching)")
    seen = page.evaluate("seen")
    frames_ms: list[float] = seen["frames_ms"][1:]
    late = sum(each > 1.5 * FRAME_MS for each in frames_ms)
    print(
        f"{what}: {1000 * len(frames_ms) / sum(frames_ms):.1f} frames a second, "
        f"95 % within {quantiles(frames_ms, n=20)[-1]:.1f} ms, {late} of {len(frames_ms)} late; "
        f"{seen['num_gaps']} with a gap, {seen['num_waiting']} with a row's text still to come",
        flush=True,
    )


def memory(page: Page, server: Server, minutes: int) -> None:
    client = server.client
    content = ("long.jsonl", lines(labels(2000)))
    file = client.files.create(file=content, purpose="fine-tune")
    hyperparameters: Any = {"n_epochs": 50, "batch_size": 1}
    job = client.fine_tuning.jobs.create(
        model="tunesmith-nano",
        training_file=file.id,
        method={"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
    )
    page.goto(f"/jobs/{job.id}")
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable")
    for minute in range(minutes + 1):
        step = client.get(f"/tunesmith/jobs/{job.id}", cast_to=dict[str, Any])["step"]
        print(f"minute {minute}: step {step}, {heap(devtools)}", flush=True)
        page.wait_for_timeout(60_000)
    client.fine_tuning.jobs.cancel(job.id)


def heap(devtools: CDPSession) -> str:
    devtools.send("HeapProfiler.collectGarbage")
    measured = devtools.send("Performance.getMetrics")["metrics"]
    figures = {each["name"]: each["value"] for each in measured}
    return (
        f"heap {figures['JSHeapUsedSize'] / 1e6:.1f} MB, {figures['Nodes']:.0f} nodes, "
        f"{figures['JSEventListeners']:.0f} listeners"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=PARTS)
    parser.add_argument("--minutes", type=int, default=30)
    arguments = parser.parse_args()
    arguments.parts = arguments.parts or PARTS
    return arguments


if __name__ == "__main__":
    main()
