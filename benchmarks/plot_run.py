"""Draws one run as a picture: returns of training and evaluation over env steps.

    python benchmarks/plot_run.py --run_dir=R --out=docs/images/run.png

Needs matplotlib, which Sactory itself doesn't: `pip install matplotlib`.
"""

from __future__ import annotations

from pathlib import Path

from sactory.errors import UserError
from sactory.flags import Flags, run_script
from sactory.metrics import read_log
from sactory.run_dir import RunDir, read_json

BLUE, ORANGE = "#3b6fb6", "#d9822b"


def draw(run_dir: RunDir, out: Path) -> None:
    """Writes the picture."""
    try:
        from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        raise UserError("matplotlib is missing: pip install matplotlib") from e
    train = [row for row in read_log(run_dir.train_log) if "episode_reward" in row]
    scores = [row for row in read_log(run_dir.eval_log) if "export" in row]
    specs, done = read_json(run_dir.specs), read_json(run_dir.done)
    minutes = (train[-1]["time"] - train[0]["time"]) / 60
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        [row["step"] for row in train],
        [row["episode_reward"] for row in train],
        color=BLUE,
        alpha=0.6,
        linewidth=1,
        label="episodes of training",
    )
    steps = [row["step"] for row in scores]
    means = [row["episode_reward"] for row in scores]
    spread = [row["episode_reward_std"] for row in scores]
    axes.errorbar(
        steps, means, spread, color=ORANGE, marker="o", capsize=3, label="evaluations, mean and std"
    )
    axes.set_title(
        f"{specs['env']['name']}: {done['env_steps']:,} env steps, {done['train_steps']:,} updates "
        f"(RATIO {done['ratio']:.3f}) in {minutes:.0f} min on 2 cores",
        fontsize=10,
    )
    axes.set_xlabel("env steps")
    axes.set_ylabel("return")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130)


def main(argv: list[str]) -> None:
    """Reads the flags and draws."""
    flags = Flags("plot_run", "Draws the returns of one run.")
    flags.string("run_dir", None, "the run directory", required=True)
    flags.string("out", "run.png", "the picture")
    args, _ = flags.parse(argv)
    draw(RunDir(args.run_dir).require(), Path(args.out))


if __name__ == "__main__":
    run_script(main)
