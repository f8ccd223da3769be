"""Scores one export and says so on the console; writes nothing but the video asked for."""

from __future__ import annotations

from eval.evaluator import Evaluator
from eval.video import Film
from sactory import metrics, settings, supervision
from sactory.actor import Actor
from sactory.policies import Export
from sactory.run_dir import RunDir


def score_once(run_dir: RunDir, export: Export, num_episodes: int | None, video: bool) -> int:
    """Scores one export.

    Args:
        run_dir: The run.
        export: What to score.
        num_episodes: Episodes to play; None: `eval.Evaluator.num_eval_episodes`.
        video: Whether to record the first one to `R/video/<env_steps>.mp4`.

    Returns:
        The exit code.

    Raises:
        UserError: The export is corrupt, or a video was asked for and can't be made.
    """
    if num_episodes is None:
        num_episodes = settings.Evaluator().num_eval_episodes
    actor = Actor(export.path)
    evaluator = Evaluator(run_dir, num_episodes)
    path = run_dir.video(export.env_steps)
    if video:
        with Film(path) as film:
            score = evaluator.score(actor, film, actor.meta)
    else:
        score = evaluator.score(actor, meta=actor.meta)
    evaluator.close()
    assert score is not None  # nothing stops it
    row = score.row()
    print(metrics.eval_line({**row, "step": export.env_steps}))
    solved = f", success {row['success']:.2f}" if "success" in row else ""
    print(
        f"{num_episodes} episodes of {row['episode_length']:.0f} env steps: returns "
        f"{row['episode_reward_min']:.1f} to {row['episode_reward_max']:.1f}, "
        f"std {row['episode_reward_std']:.1f}{solved}"
    )
    print(f"policy {export.path}")
    if video:
        print(f"video {path}")
    return supervision.OK
