"""Scores one policy and says so on the console; writes nothing but the video asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.evaluator import Acts, Evaluator, Score
from eval.video import Film
from sactory import metrics, settings, supervision
from sactory.actor import Actor
from sactory.errors import UserError
from sactory.intervals import wilson
from sactory.policies import Export
from sactory.run_dir import RunDir


def score_once(run_dir: RunDir, policy: Export | str, num_episodes: int | None, video: bool) -> int:
    """Scores one policy; all of a run meet the same seeds.

    Args:
        run_dir: The run.
        policy: An export, or the name of a scripted policy that the environment offers.
        num_episodes: Episodes to play; None: `eval.Evaluator.num_eval_episodes`.
        video: Whether to record the first one to `R/video/`, by the export's env steps or by name.

    Returns:
        The exit code.

    Raises:
        UserError: The export is corrupt, there is no such policy, or a video was asked for and
            can't be made.
    """
    if num_episodes is None:
        num_episodes = settings.Evaluator().num_eval_episodes
    evaluator = Evaluator(run_dir, num_episodes)
    if isinstance(policy, str):
        name, path = f"{policy} (scripted)", run_dir.videos / f"{policy}.mp4"
        score = _play(evaluator, _scripted(evaluator, policy), path if video else None)
    else:
        name, path = str(policy.path), run_dir.video(policy.env_steps)
        actor = Actor(policy.path)
        score = _play(evaluator, actor, path if video else None, actor.meta)
        print(metrics.eval_line({**score.row(), "step": policy.env_steps}))
    _tell(score, name)
    if video:
        print(f"video {path}")
    return supervision.OK


def _scripted(evaluator: Evaluator, name: str) -> Acts:
    known = getattr(evaluator.env, "baselines", ())
    if name not in known:
        has = ", ".join(known) or "no scripted policies"
        raise UserError(f"--policy={name}: {settings.Env().name} has {has}")
    return evaluator.env.baseline(name)


def _play(
    evaluator: Evaluator, actor: Acts, path: Path | None, meta: Mapping[str, Any] | None = None
) -> Score:
    if path is None:
        score = evaluator.score(actor, meta=meta)
    else:
        with Film(path) as film:
            score = evaluator.score(actor, film, meta)
    evaluator.close()
    assert score is not None  # nothing stops it
    return score


def _tell(score: Score, policy: str) -> None:
    row = score.row()
    count = len(score.returns)
    solved = ""
    if score.successes is not None:
        low, high = wilson(float(score.successes.sum()), count)
        solved = f", success {row['success']:.2f} (95 % interval {low:.2f} to {high:.2f})"
    print(
        f"{count} episodes of {row['episode_length']:.0f} env steps: returns "
        f"{row['episode_reward_min']:.1f} to {row['episode_reward_max']:.1f}, "
        f"std {row['episode_reward_std']:.1f}{solved}"
    )
    print(f"policy {policy}")
