"""What can be wrong with an environment, one finding for each thing that `check-env` looks at.

An environment is only ever handled as a run handles it: built by seed, stepped in [-1, 1].
"""

from __future__ import annotations

import dataclasses
import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tf_agents.trajectories import time_step as ts

from sactory import settings
from sactory.errors import UserError
from sactory.rows import LIMIT
from sactory.specs import ArraySpec, Specs

OK, WARN, FAIL = "ok", "warn", "fail"
_COMPARED = 200  # steps; two simulations that differ at all differ by then
_KEPT = 8  # observations held on to, to see whether they change
_SLOW = 200.0  # steps a second below which a run waits for its environment


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of one check: `OK`, `WARN` or `FAIL`, of what, and what to do about it."""

    level: str
    topic: str
    text: str


class Play:
    """Steps of an environment, from its reset on, with what they broke.

    Args:
        env: The environment.
        specs: What it promises.
        actions: `[N, A]`.

    Attributes:
        observations: The sensors at each step as float32 copies, flat.
        rewards: At each step.
        ends: Length in steps and discount of each episode that ended.
        broken: What was wrong with values, by kind: the first of each.
        reuses: Whether an observation changed after it was returned.
        seconds: Time in `step`.
    """

    def __init__(self, env: Any, specs: Specs, actions: np.ndarray):
        self.observations: list[np.ndarray] = []
        self.rewards: list[float] = []
        self.ends: list[tuple[int, float]] = []
        self.broken: dict[str, str] = {}
        self.reuses = False
        self.seconds = 0.0
        self._specs = specs
        self._kept: list[tuple[np.ndarray, np.ndarray]] = []
        self._length = 0
        self._see(env.reset(), first=True)
        for action in actions:
            over = self._length == -1
            began = time.perf_counter()
            step = env.step(action)
            self.seconds += time.perf_counter() - began
            self._see(step, first=over)

    def _see(self, step: ts.TimeStep, first: bool) -> None:
        kind = int(step.step_type)
        if first != (kind == ts.StepType.FIRST):
            wanted = "a FIRST" if first else "a MID or LAST"
            self._break("order", f"its step_type is {kind} where {wanted} one belongs")
        self._length = 0 if first else self._length + 1
        self._see_observation(step.observation)
        reward, discount = np.asarray(step.reward), np.asarray(step.discount)
        if reward.shape != () or not abs(float(reward)) <= LIMIT:
            self._break("reward", f"the reward is {step.reward!r}: a number within ±{LIMIT:g}")
        elif discount.shape != () or not 0 <= float(discount) <= 1:
            self._break("discount", f"the discount is {step.discount!r}: 0 to 1 is wanted")
        self.rewards.append(float(reward.ravel()[0]))
        if kind == ts.StepType.LAST:
            self.ends.append((self._length, float(discount)))
            self._length = -1
        elif float(discount) == 0:
            self._break("discount", "the discount is 0 before the last step: it ends nothing")

    def _see_observation(self, observation: Any) -> None:
        flat = []
        lone = isinstance(self._specs.observation, ArraySpec)
        for key, spec in self._specs.sensors.items():
            what = "the observation" if lone else f"sensor '{key}'"
            value = np.asarray(observation if lone else observation[key])
            found = f"{value.dtype.name} {list(value.shape)}"
            if (value.shape, value.dtype.name) != (spec.shape, spec.dtype):
                self._break("form", f"{what} is {found}, its spec promises {spec}")
            elif not (np.abs(value) <= LIMIT).all():
                self._break("finite", f"{what} holds NaN or a number beyond ±{LIMIT:g}")
            elif (
                spec.minimum is not None
                and not (
                    (value >= np.asarray(spec.minimum)) & (value <= np.asarray(spec.maximum))
                ).all()
            ):
                self._break("bounds", f"{what} leaves its bounds [{spec.minimum}, {spec.maximum}]")
            self._keep(value)
            flat.append(value.astype(np.float32).ravel())
        self.observations.append(np.concatenate(flat))

    def _keep(self, value: np.ndarray) -> None:
        for array, copy in self._kept:
            self.reuses |= np.shares_memory(array, value)
            self.reuses |= not np.array_equal(array, copy, equal_nan=True)
        self._kept = [*self._kept[1 - _KEPT :], (value, value.copy())]

    def _break(self, kind: str, text: str) -> None:
        self.broken.setdefault(kind, f"step {len(self.rewards)}: {text}")


def check(
    build: Callable[[int], Any], env_settings: settings.Env, steps: int, seed: int
) -> Iterator[Finding]:
    """Checks an environment; ends early where the rest would make no sense.

    Args:
        build: Builds the environment with a seed.
        env_settings: What it is built with.
        steps: Steps to play.
        seed: The seed.
    """
    try:
        env = build(seed)
        specs = Specs.of_env(env, env_settings)
    except UserError:
        raise
    except Exception as e:
        yield Finding(FAIL, "build", f"it can't be built: {_words(e)}")
        return
    yield Finding(OK, "specs", _spec_words(specs))
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, *specs.action.shape))
    actions = actions.astype(np.float32)
    try:
        play = Play(env, specs, actions)
        yield from _values(play, steps)
        yield from _episodes(play, env)
        yield _seeds(play, build, specs, actions[:_COMPARED], seed)
        yield _memory(play)
        yield _pickle(env)
        yield _parameters(env, specs, actions[:_KEPT])
        yield _speed(play, steps)
    except Exception as e:
        yield Finding(
            FAIL,
            "steps",
            f"it raised {_words(e)}: a run counts that as a refused step; mend it",
        )
    finally:
        env.close()


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _spec_words(specs: Specs) -> str:
    seen = ", ".join(f"{key} {spec}" for key, spec in specs.sensors.items())
    return f"{seen}; action {specs.action}; a row of {specs.row.size} floats"


def _values(play: Play, steps: int) -> Iterator[Finding]:
    for kind, text in play.broken.items():
        yield Finding(FAIL, kind, f"{text}; mend the environment or its spec")
    if not play.broken:
        yield Finding(OK, "values", f"{steps} random steps: finite, and as the specs promise")


def _episodes(play: Play, env: Any) -> Iterator[Finding]:
    """Whether episodes end, and whether time limits are told from true ends."""
    limit = env.max_episode_steps
    rows = None if limit is None else -(-limit // env.action_repeat)
    ends = play.ends
    terminal = [length for length, discount in ends if discount == 0]
    text = f"{len(ends)} ended, {len(terminal)} at a terminal state (discount 0)"
    if not ends and rows is None:
        text = "no episode ended and it names no max_episode_steps: has it a time limit?"
        yield Finding(WARN, "episodes", text)
    elif not ends and len(play.rewards) > (rows or 0):
        text = f"no episode ended, though max_episode_steps = {limit}"
        yield Finding(FAIL, "episodes", f"{text}: return a LAST step there")
    elif not ends:
        yield Finding(OK, "episodes", f"none ended yet; max_episode_steps = {limit}")
    elif len(terminal) == len(ends) > 1 and len(set(terminal)) == 1:
        why = f"all {len(ends)} ended after {terminal[0]} steps with discount 0"
        right = "if that is a time limit, end with ts.truncation, or truncated = True"
        yield Finding(WARN, "episodes", f"{why}: {right}")
    else:
        yield Finding(OK, "episodes", text)


def _seeds(
    play: Play, build: Callable[[int], Any], specs: Specs, actions: np.ndarray, seed: int
) -> Finding:
    twin = build(seed)
    same = Play(twin, specs, actions)
    for i, (one, other) in enumerate(zip(play.observations, same.observations)):
        if not np.array_equal(one, other, equal_nan=True) or play.rewards[i] != same.rewards[i]:
            text = f"with the same seed two environments differ from step {i} on"
            right = "draw every random number from a generator that `seed` starts anew"
            return Finding(WARN, "seeds", f"{text}: no run can be repeated; {right}")
    try:
        twin.seed(seed)
        again = Play(twin, specs, actions[:_KEPT])
        if not np.array_equal(again.observations, play.observations[: len(again.observations)]):
            text = "seeding it anew does not give the same episode again"
            return Finding(WARN, "seeds", f"{text}: evaluations meet other first states each time")
    except NotImplementedError:
        pass  # the evaluator builds such an environment anew
    twin.close()
    other = build(seed + 1)
    different = Play(other, specs, actions[:_KEPT])
    other.close()
    if np.array_equal(different.observations, play.observations[: len(different.observations)]):
        text = "another seed gives the same episode"
        return Finding(WARN, "seeds", f"{text}: is nothing random, or is the seed not used?")
    return Finding(OK, "seeds", "the same seed gives the same episode, another one another")


def _memory(play: Play) -> Finding:
    if play.reuses:
        text = "it writes into observations that it returned before"
        return Finding(WARN, "memory", f"{text}: a run copies them, other code may not; copy them")
    return Finding(OK, "memory", "each observation keeps its values")


def _pickle(env: Any) -> Finding:
    try:
        size = len(pickle.dumps(env))
    except Exception as e:  # whatever the user's classes raise
        text = f"it can't be pickled ({_words(e)})"
        return Finding(WARN, "pickling", f"{text}: no run needs it, process pools do")
    return Finding(OK, "pickling", f"{size / 1000:.0f} kB")


def _parameters(env: Any, specs: Specs, actions: np.ndarray) -> Finding:
    """Sets every parameter to its default and to its ends, and plays a little each time."""
    wanted = env.parameter_specs()
    if not wanted:
        return Finding(OK, "parameters", "none: a curriculum has nothing to set here")
    defaults = {name: spec.default for name, spec in wanted.items()}
    for name, spec in wanted.items():
        ends = [end for end in (spec.minimum, spec.maximum) if end is not None]
        for value in ends if np.ndim(spec.default) == 0 else []:
            try:
                env.set_parameters({**defaults, name: type(spec.default)(value)})
                broken = Play(env, specs, actions).broken
            except Exception as e:
                broken = {"raised": _words(e)}
            if broken:
                text = f"{name} = {value}: {next(iter(broken.values()))}"
                right = "narrow its ParameterSpec or mend what it does"
                return Finding(FAIL, "parameters", f"{text}; {right}")
    env.set_parameters(defaults)
    env.reset()
    return Finding(OK, "parameters", f"{len(wanted)}: {', '.join(wanted)}")


def _speed(play: Play, steps: int) -> Finding:
    rate = steps / max(play.seconds, 1e-9)
    text = f"{rate:,.0f} steps/s ({1e6 / rate:,.0f} µs each) on one core"
    if rate < _SLOW:
        text += f": {1e5 / rate / 60:.0f} minutes for 100,000; more collectors help"
    return Finding(OK if rate >= _SLOW else WARN, "speed", text)
