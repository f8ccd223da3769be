"""ContactInsert's speed in contact, and how often its scripted policies succeed.

    python -m benchmarks.contact_insert --episodes=60

Each figure stands beside the one that the prototype of the environment gave. Results:
benchmarks/results/contact_insert.json; `--table` prints them as Markdown.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from sactory import envs, quiet, settings
from sactory.envs.contact_insert.parameters import LEVELS
from sactory.envs.contact_insert.variants import VARIANTS
from sactory.flags import Flags, run_script
from sactory.intervals import wilson
from sactory.run_dir import read_json, write_json

RESULT = Path(__file__).resolve().parent / "results" / "contact_insert.json"
POLICIES = ("straight", "search", "jiggle", "comply")
PHYSICS_STEPS = 40_000  # timed, of each variant
_SEED = 1

# clearance and chamfer mm (plate: gap mm), friction, noise mm and rad, and what the prototype's
# policies reached: straight, search, jiggle
_PLANAR = [
    ((2, 3, 0.1, 0, 0), (1.00, 1.00, 1.00)),
    ((2, 3, 0.3, 5, 0.05), (0.82, 1.00, 0.98)),
    ((1, 2, 0.3, 3, 0.05), (0.73, 1.00, 1.00)),
    ((1, 2, 0.6, 5, 0.10), (0.40, 0.53, 0.55)),
    ((0.5, 1, 0.3, 5, 0.10), (0.28, 0.93, 0.90)),
    ((0.5, 1, 0.6, 5, 0.10), (0.15, 0.23, 0.35)),
    ((0.25, 0.5, 0.3, 5, 0.10), (0.15, 0.82, 0.78)),
    ((0.25, 0.5, 0.3, 10, 0.15), (0.07, 0.48, 0.32)),
]
_PEG = [
    ((2, 3, 0.3, 2, 0.02), (1.00, 1.00, 1.00)),
    ((2, 3, 0.3, 4, 0.05), (0.72, 1.00, 1.00)),
    ((1, 2, 0.3, 2, 0.05), (0.60, 1.00, 0.97)),
    ((1, 2, 0.3, 4, 0.10), (0.12, 0.82, 0.65)),
    ((0.5, 1, 0.3, 3, 0.10), (0.10, 0.45, 0.25)),
    ((0.5, 1, 0.5, 5, 0.15), (0.00, 0.07, 0.00)),
]
_CYLINDER = [
    ((1, 2, 0.3, 4, 0.10), (0.25, 1.00, 0.80)),
    ((0.5, 1, 0.3, 3, 0.10), (0.12, 0.88, 0.50)),
]
_PLATE = [
    ((100, 0, 0), (0.97, 0.82, 0.88)),
    ((100, 50, 0.087), (0.78, 0.70, 0.75)),
    ((60, 0, 0), (0.90, 0.45, 0.40)),
    ((60, 50, 0.087), (0.40, 0.28, 0.38)),
    ((40, 0, 0), (0.57, 0.25, 0.20)),
    ((40, 40, 0.087), (0.17, 0.17, 0.20)),
]


def cases() -> list[dict[str, Any]]:
    """What is scored: variant, level, parameters, a name for the table, the prototype's figures."""
    found: list[dict[str, Any]] = [
        {"variant": variant, "level": level, "parameters": {}, "name": level, "prototype": None}
        for variant in VARIANTS
        for level in LEVELS
    ]
    for variant, shape, rows in (
        ("planar", "box", _PLANAR),
        ("peg", "box", _PEG),
        ("peg", "cylinder", _CYLINDER),
    ):
        for (clearance, chamfer, friction, mm, rad), prototype in rows:
            values: dict[str, Any] = {
                "clearance": clearance / 1000,
                "chamfer": chamfer / 1000,
                "friction": friction,
                "goal_pos_noise": mm / 1000,
                "goal_rot_noise": rad,
            }
            if variant == "peg":
                values["hole_shape"] = shape
            name = f"{clearance}/{chamfer}, {friction}, {mm}/{rad}"
            found.append(_row(variant, values, name + (" round" * (shape != "box")), prototype))
    for (gap, mm, rad), prototype in _PLATE:
        values = {"slot_gap": gap / 1000, "goal_pos_noise": mm / 1000, "goal_rot_noise": rad}
        found.append(_row("plate", values, f"{gap}, {mm}/{rad}", prototype))
    return found


def _row(variant: str, values: dict[str, Any], name: str, prototype: tuple) -> dict[str, Any]:
    """A row of the prototype's tables: perfect sensing, like level easy, unless it says else."""
    return {
        "variant": variant,
        "level": "easy",
        "parameters": values,
        "name": name,
        "prototype": prototype,
    }


def score(case: dict[str, Any], policy: str, episodes: int) -> int:
    """Successes of a scripted policy over so many episodes."""
    kwargs = {"parameters": case["parameters"]}
    wanted = settings.Env(
        name=f"contact_insert:{case['variant']}", level=case["level"], task_kwargs=kwargs
    )
    env = envs.load(wanted, seed=_SEED)
    successes = 0
    for episode in range(episodes):
        env.seed(_SEED + episode)  # every policy meets the same starts
        actor = env.baseline(policy, seed=episode)
        step = env.reset()
        while not step.is_last():
            step = env.step(actor.act(step.observation[None])[0])
        successes += env.get_info()["success"]
    return successes


def speed(variant: str, physics_steps: int) -> dict[str, Any]:
    """Physics steps a second while the part is pressed against the fixture and jiggled."""
    values = {"init_z_offset": 0.005, "init_z_spread": 0.0, "force_abort": 1e6}
    kwargs = {"parameters": {**values, "goal_pos_noise": 0.02}}
    env = envs.load(
        settings.Env(name=f"contact_insert:{variant}", level="medium", task_kwargs=kwargs),
        seed=_SEED,
    )
    substeps = env.variant.substeps
    actor = env.baseline("jiggle")
    contacts, touched, cpu, wall = [], 0, 0.0, 0.0
    step = env.reset()
    while touched * substeps < physics_steps:
        action = actor.act(step.observation[None])[0]
        began = time.perf_counter(), time.process_time()
        step = env.step(action)
        took = time.perf_counter() - began[0], time.process_time() - began[1]
        if step.is_first() or not env.simulation.data.ncon:
            continue
        touched += 1
        wall, cpu = wall + took[0], cpu + took[1]
        contacts.append(env.simulation.data.ncon)
    return {
        "physics_steps_per_second": round(touched * substeps / wall),
        "physics_steps_per_cpu_second": round(touched * substeps / cpu),
        "env_steps_per_cpu_second": round(touched / cpu),
        "contacts": round(float(np.mean(contacts)), 1),
    }


def table(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| variant | physics steps/s in contact | a CPU second | contacts |"]
    lines.append("|---|---|---|---|")
    for variant, found in result.items():
        row = found["speed"]
        per_second, per_cpu = row["physics_steps_per_second"], row["physics_steps_per_cpu_second"]
        lines.append(f"| {variant} | {per_second:,} | {per_cpu:,} | {row['contacts']} |")
    lines += ["", f"| case | {' | '.join(POLICIES)} | prototype's |", "|---|---|---|---|---|---|"]
    for variant, found in result.items():
        for case in found["cases"]:
            cells = [_cell(case["successes"][policy], found["episodes"]) for policy in POLICIES]
            others = " ".join(f"{p:.2f}" for p in case["prototype"] or ())
            lines.append(f"| {variant} {case['name']} | {' | '.join(cells)} | {others} |")
    return "\n".join(lines)


def _cell(successes: int, episodes: int) -> str:
    low, high = wilson(successes, episodes)
    return f"{successes / episodes:.2f} ({low:.2f}-{high:.2f})"


def measure(variant: str, episodes: int) -> dict[str, Any]:
    """All figures of a variant."""
    load = os.getloadavg()
    result: dict[str, Any] = {
        "episodes": episodes,
        "speed": speed(variant, PHYSICS_STEPS),
        "cases": [],
    }
    for case in cases():
        if case["variant"] != variant:
            continue
        successes = {policy: score(case, policy, episodes) for policy in POLICIES}
        result["cases"].append({**case, "successes": successes})
        print(variant, case["name"], successes, case["prototype"], flush=True)
    result["load_at_start_and_end"] = [round(load[0], 1), round(os.getloadavg()[0], 1)]
    return result


def main(argv: list[str]) -> int:
    """Measures some variants, stores what came of it beside the others' results, and prints all."""
    flags = Flags("contact_insert", "ContactInsert's speed and its scripted policies.")
    flags.integer("episodes", 60, "episodes of each policy in each case")
    flags.string("variants", ",".join(VARIANTS), "which variants")
    flags.boolean("table", False, "print the stored results and measure nothing")
    args, _ = flags.parse(argv)
    for variant in () if args.table else args.variants.split(","):
        found = measure(variant, args.episodes)
        stored = read_json(RESULT) or {}
        stored[variant] = found
        write_json(RESULT, {name: stored[name] for name in VARIANTS if name in stored})
    print(table(read_json(RESULT)))
    return 0


if __name__ == "__main__":
    quiet.set_environment()
    run_script(main)
