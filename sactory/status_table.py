"""How `sactory status` looks on a terminal: a table of the programs and the lines around it.

Drawn from what `status.collect` returns, once or again and again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sactory import slurm_view, status, status_list
from sactory.diagnosis import GB, duration
from sactory.run_dir import RunDir
from sactory.status import WATCH_SECONDS, full_name

_LONGEST_CELL = 40
_WIDTH_OF_FILES = 250


def picture(
    runs: list[RunDir], look: Callable[[], slurm_view.View]
) -> Callable[[], RenderableType]:
    """What draws one run in full, or a line for each of several.

    Args:
        runs: The runs.
        look: Asks SLURM.
    """

    def draw() -> RenderableType:
        view = look()
        if len(runs) > 1:
            return status_list.render(status_list.collect(runs, view), view.trouble)
        (run,) = runs
        job = view.jobs.get(run.root)
        return render(status.collect(run), run.root, job)

    return draw


def plain_console() -> Console:
    """A console that prints text as it is; into a file or pipe without a limit of width."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_FILES
    return console


def show(draw: Callable[[], RenderableType], watch: bool) -> None:
    """Prints a picture once, or keeps it up to date until Ctrl-C.

    Args:
        draw: Makes it.
        watch: Whether to go on.
    """
    console = plain_console()
    with contextlib.suppress(KeyboardInterrupt):
        if not watch or not console.is_terminal:
            while True:
                console.print(draw(), soft_wrap=True)
                if not watch:
                    return
                time.sleep(WATCH_SECONDS)
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(draw(), refresh=True)
                time.sleep(WATCH_SECONDS)


def render(told: dict[str, Any], root: Path, job: slurm_view.Job | None = None) -> Group:
    """The whole picture of one run at one moment."""
    parts: list[Any] = [
        Text(f"{slurm_view.joined(told['state'], job)}: {root}", style="bold"),
        *([Text(status_list.job_line(job))] if job is not None else []),
        Text(" | ".join(_counters(told))),
    ]
    health = _health(told)
    if health:
        parts.append(Text(" | ".join(health)))
    if told["programs"]:
        parts.append(_programs(told["programs"]))
    parts += [Text(f"- {line}", style="yellow") for line in told["why"]]
    if told["failed"]:
        parts.append(Text(f"log: {told['failed'].get('log')}"))
    return Group(*parts)


def _counters(told: dict[str, Any]) -> list[str]:
    counters = [f"{told['env_steps']:,} env steps", f"{told['train_steps']:,} updates"]
    for label, key, form in (
        ("RATIO", "ratio", ".4f"),
        ("rows", "replay_size", ",.0f"),
        ("train return", "last_train_return", ".1f"),
        ("eval return", "last_eval_return", ".1f"),
    ):
        if told[key] is not None:
            counters.append(f"{label} {told[key]:{form}}")
    return counters + _curriculum(told["curriculum"])


def _curriculum(told: dict[str, Any] | None) -> list[str]:
    """Where the curriculum is."""
    if told is None:
        return []
    parts = [f"{param} in lesson {lesson}" for param, lesson in told["lessons"].items()]
    if told["difficulty"]:
        parts.append(f"difficulty {told['difficulty']:.2f}")
    parts.append(f"version {told['version']}")
    return [f"curriculum: {', '.join(parts)}"]


def _health(told: dict[str, Any]) -> list[str]:
    """Ages, waits and sizes; what is unknown is left out."""
    health = []
    if told["blocked"]:
        inserts, samples = (100 * told["blocked"][side] for side in ("inserts", "samples"))
        health.append(f"limiter held inserts {inserts:.0f} %, samples {samples:.0f} %")
    if told["weights_age"] is not None:
        health.append(f"weights {duration(told['weights_age'])} old")
    if told["checkpoints"]:
        ages = (f"{name} {duration(age)}" for name, age in sorted(told["checkpoints"].items()))
        health.append(f"checkpoints {', '.join(ages)} old")
    if told["tables"]:
        sizes = (f"{name} {items:,}" for name, items in told["tables"].items())
        health.append(f"items {', '.join(sizes)}")
    if told["access"]:
        health.append(f"access {told['access']}")
    if told["disk_free"] is not None:
        health.append(f"disk {told['disk_free'] / GB:.1f} GB free")
    return health


def _programs(programs: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("program", "pid", "state", "restarts", "steps/s", "cores", "last error"):
        table.add_column(name, no_wrap=name not in ("state", "last error"))
    for p in programs:
        rate = p["steps_per_second"]
        cells = (
            full_name(p),
            str(p["pid"] or "-"),
            p["state"],
            str(p["restarts"]),
            "-" if rate is None else f"{rate:,.1f}",
            "any" if not p["cpus"] else ",".join(map(str, p["cpus"])),
            _cut(p["last_error"] or ""),
        )
        table.add_row(*map(Text, cells))
    return table


def _cut(text: str) -> str:
    """What fits a cell; the lines below the table say it whole."""
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"
