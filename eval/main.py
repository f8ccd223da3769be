"""`sactory eval`: flags and wiring of program 4."""

from __future__ import annotations

from sactory import config, cpus, locks, metrics, quiet, settings, supervision
from sactory.errors import UserError
from sactory.flags import Flags
from sactory.heartbeat import Heartbeat
from sactory.run_dir import RunDir


def main(argv: list[str]) -> int:
    """Scores one export, or every export of a run as it comes."""
    flags = Flags(
        "eval",
        "Scores the greedy policy on fixed seeds. With any other flag it scores one export and\n"
        "ends; without them it runs beside training and scores every export.",
    )
    flags.string("run_dir", None, "the run directory", required=True)
    flags.string("step", None, "latest, best, or env steps: the nearest export at or below")
    flags.integer("episodes", None, "how many episodes; default: eval.Evaluator.num_eval_episodes")
    flags.boolean("video", False, "record the first episode to R/video/<env_steps>.mp4")
    flags.string("policy", None, "a scripted policy of the environment's, in an export's place")
    args, _ = flags.parse(argv)
    if args.episodes is not None and args.episodes < 1:
        raise UserError(f"--episodes={args.episodes} must be at least 1")
    if args.policy is not None and args.step is not None:
        raise UserError("--step names an export and --policy a scripted policy: give one of them")
    run_dir = RunDir(args.run_dir).require()
    config.load(run_dir)
    if args.step == args.episodes == args.policy is None and not args.video:
        return _beside_training(run_dir)
    plan = cpus.claim("eval", settings.Eval().cpus)  # before numpy is loaded
    from sactory import policies

    policy = args.policy or policies.find_export(run_dir, args.step or "latest")
    if args.policy is None:
        policies.read_meta(policy.path)  # a corrupt export is told before TensorFlow is loaded
    with quiet.hushed():
        _prepare_tensorflow(plan)
        from eval.once import score_once

    return score_once(run_dir, policy, args.episodes, args.video)


def _beside_training(run_dir: RunDir) -> int:
    plan = cpus.claim("eval", settings.Eval().cpus)
    from sactory import policies

    scored = policies.scores(run_dir)
    if run_dir.is_done and all(e.name in scored for e in policies.list_exports(run_dir)):
        rows = [row for row in metrics.read_log(run_dir.eval_log) if "export" in row]
        print(f"the run in {run_dir} is finished and every export is scored; the last one:")
        print(metrics.eval_line(rows[-1]) if rows else "none")
        return supervision.OK
    locks.hold_lock(
        run_dir.lock("eval"),
        f"another evaluator already works on {run_dir}; to score one policy beside it: "
        f"`sactory eval --run_dir {run_dir} --step=latest`",
    )
    stop = supervision.start_signal_thread()
    print("scoring every export as it comes; --step=latest scores one and ends", flush=True)
    heartbeat = Heartbeat(run_dir, "eval")
    _prepare_tensorflow(plan)
    from eval.service import Service

    try:
        return Service(run_dir, stop, heartbeat).run()
    except UserError as e:
        heartbeat.update(error=str(e))
        heartbeat.close("failed")
        raise


def _prepare_tensorflow(plan: cpus.CpuPlan) -> None:
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(plan.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
