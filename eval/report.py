"""`sactory report`: final scores over tasks and seeds, and their learning curves.

Reads the run directories of finished and unfinished runs alike; never imports TensorFlow.
"""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from eval import score_table
from eval.outcomes import read_all
from sactory import run_list
from sactory.errors import UserError
from sactory.flags import Flags
from sactory.run_dir import write_atomic
from sactory.status_table import plain_console

PICTURE = "curves.png"


def main(argv: list[str]) -> int:
    """Prints the table and writes it, with the curves, into a directory."""
    flags = Flags("report", "Scores over tasks and seeds, and their learning curves.", "RUNS...")
    flags.string("out", "report", "where scores.csv, scores.md, runs.csv and curves.png go")
    flags.integer("at", None, "score after so many env steps (default: at the end of each run)")
    args, words = flags.parse(argv)
    if not words:
        raise UserError("which runs? `sactory report 'runs/*'`")
    if args.at is not None and args.at < 0:
        raise UserError(f"--at = {args.at} must be a number of env steps, 0 or more")
    outcomes, trouble = read_all(run_list.find(words))
    table = score_table.lines(outcomes, args.at)
    console = plain_console()
    console.print(_render(score_table.cells(table)))
    for line in [trouble, *score_table.unfinished(outcomes)]:
        if line:
            console.print(f"- {line}", style="yellow", soft_wrap=True)
    out = Path(args.out)
    from eval import curves  # matplotlib takes a second

    try:
        curves.draw(outcomes, out / PICTURE)
        write_atomic(out / "scores.csv", score_table.score_csv(table))
        write_atomic(out / "runs.csv", score_table.run_csv(outcomes, args.at))
        page = score_table.markdown(table, outcomes, args.at, PICTURE)
        write_atomic(out / "scores.md", page)
    except OSError as e:
        raise UserError(f"--out {out} can't be written: {e.strerror or e}") from e
    console.print(f"{out}: scores.csv scores.md runs.csv {PICTURE}", soft_wrap=True)
    return 0


def _render(rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for number, name in enumerate(rows[0]):
        table.add_column(name, overflow="fold", justify="left" if number < 2 else "right")
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table
