"""Fills a new run's replay: with the rows of another run or with demonstrations.

Seeded rows are material for the trainer, but no rows of this run: the limiter counts none of them,
so that the random steps and the updates per row are as without a seed.
"""

from __future__ import annotations

import math
import secrets
import tempfile
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
from absl import logging
from reverb.cc import schema_pb2

from replay_server import offline, repair
from replay_server.history import Copy, History
from replay_server.manifest import Manifest
from sactory import config, settings
from sactory.errors import UserError
from sactory.rows import UNSOUND, RowFormat, sound
from sactory.run_dir import RunDir, is_unreadable
from sactory.specs import Specs
from sactory.tables import REPLAY

_POLICY_STEP, _RANDOM_POLICY_STEP = "policy_step", -1.0
# What rows mean: runs that differ here can't share them.
_MEANING = ("segment_length", "n_step", "gamma")


def make(run_dir: RunDir, history: History, replay: settings.Replay, infos: list[Any]) -> Copy:
    """Makes the run's first checkpoint from `replay.seed_from`.

    Args:
        run_dir: The new run.
        history: Where the checkpoint goes.
        replay: The run's settings.
        infos: The server's tables (`offline.info_of`).

    Raises:
        UserError: The seed is absent, damaged or of another form.
    """
    source = Path(str(replay.seed_from))
    (info,) = [info for info in infos if info.name == REPLAY]
    specs = Specs.load(run_dir)
    if source.is_dir():
        _check_run(RunDir(source), specs, replay)
        copy = _from_run(RunDir(source), history, info)
    elif source.is_file():
        rows = _read_rows(source, specs, replay)
        copy = history.make(
            f"seeded from {source}",
            lambda target: _write(target, info, rows, replay.segment_length),
        )
    else:
        raise _refusal(source, "there is no such file or directory")
    count = copy.manifest.items(REPLAY) * replay.segment_length
    logging.info("seeded the replay with %d rows of %s", count, source)
    return copy


def _refusal(source: Path, why: str) -> UserError:
    return UserError(f"replay.seed_from = '{source}': {why}")


def _check_run(other: RunDir, specs: Specs, replay: settings.Replay) -> None:
    """Refuses a run whose rows are others."""
    theirs = Specs.load(other)
    if theirs.row != specs.row:
        raise _refusal(other.root, "its rows have other fields than this run's")
    if theirs.env["action_repeat"] != specs.env["action_repeat"]:
        raise _refusal(
            other.root,
            f"its envs.load.action_repeat is {theirs.env['action_repeat']}, "
            f"this run's {specs.env['action_repeat']}",
        )
    text = other.config.read_text("utf-8")
    before = config.check_text(text, str(other.config)).get(settings.Replay)
    for name in _MEANING:
        was, now = getattr(before, name), getattr(replay, name)
        if was != now:
            raise _refusal(other.root, f"its replay.{name} is {was}, this run's {now}")
    if theirs.env["name"] != specs.env["name"]:
        logging.warning(
            "replay.seed_from: its rewards are those of %s, this run's environment is %s",
            theirs.env["name"],
            specs.env["name"],
        )


def _from_run(other: RunDir, history: History, info: Any) -> Copy:
    """Copies the replay table of another run's newest whole checkpoint, without bad items."""
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=history.directory) as name:
        source = Path(name)
        _link_newest(other, source)  # links: that run may be alive and drop its old ones
        bad = repair.find_bad(source)

        def belongs(item: Any) -> bool:
            return item.table == REPLAY and item.key not in bad

        excess = sum(map(belongs, offline.items(source))) - info.max_size

        def keep(item: Any) -> bool:
            nonlocal excess
            if not belongs(item):
                return False
            excess -= 1
            return excess < 0

        def fill(target: Path) -> None:
            offline.rewrite(source, target, [offline.table_of(info)], keep)

        return history.make(f"seeded from {other}", fill)


def _link_newest(other: RunDir, target: Path) -> None:
    """Links the newest whole checkpoint of a run, which stays as it is, into `target`."""
    pairs = [(path, Manifest.load(path)) for path in other.replay_history.glob("*")]
    known = sorted(((m.sequence, p, m) for p, m in pairs if m), key=lambda t: t[0], reverse=True)
    for _, path, manifest in known:
        if manifest.vouches_for(path):
            for name in offline.FILES:
                offline.link_or_copy(path / name, target / name)
            return
    raise _refusal(other.root, "it has no whole checkpoint of a replay")


def _read_rows(path: Path, specs: Specs, replay: settings.Replay) -> np.ndarray:
    """Packs the transitions of an .npz, float32 `[N, row]`."""
    row: RowFormat = specs.row
    names = [name for name, _ in row.fields if name != _POLICY_STEP]
    parts = _read_arrays(path, names)
    missing = [name for name in names if name not in parts]
    if missing:
        raise _refusal(path, f"the array '{missing[0]}' is missing")
    if parts["reward"].ndim == 0:
        raise _refusal(path, "'reward' is one number, an array of one for each row is wanted")
    count = len(parts["reward"])
    if count < replay.segment_length:
        raise _refusal(
            path,
            f"it holds {count} rows, at least replay.segment_length = {replay.segment_length} "
            "are wanted",
        )
    parts[_POLICY_STEP] = np.full(count, _RANDOM_POLICY_STEP)
    rows = np.empty((count, row.size), np.float32)
    for (name, shape), span in zip(row.fields, row.slices.values()):
        array = parts[name]
        if array.shape != (count, *shape) or array.dtype.kind not in "fiub":
            raise _refusal(
                path,
                f"'{name}' is {array.dtype} {list(array.shape)}, numbers of shape "
                f"{[count, *shape]} are wanted",
            )
        rows[:, span] = array.reshape(count, math.prod(shape))
        if not sound(rows[:, span]).all():
            raise _refusal(path, f"'{name}' holds {UNSOUND}")
    _check_ranges(path, rows, specs)
    rows[:, row.slices["discount"]] *= replay.gamma  # a row's D of one step: gamma d
    return rows


def _read_arrays(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """Those of the arrays that an .npz has."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it is one array, as np.save writes it")
        with loaded as arrays:
            return {name: np.asarray(arrays[name]) for name in names if name in arrays}
    except Exception as e:  # the readers of zip files and arrays raise nearly anything
        if isinstance(e, OSError) and is_unreadable(e) and not isinstance(e, PermissionError):
            raise  # the disk is away, the file may be sound
        why = f"{type(e).__name__}: {e}"
        raise _refusal(path, f"it is no .npz as np.savez writes it ({why})") from None


def _check_ranges(path: Path, rows: np.ndarray, specs: Specs) -> None:
    """Checks what would be wrong in silence: actions in other units, discounts with gamma."""
    action, discount = rows[:, specs.row.span("action")], rows[:, specs.row.slices["discount"]]
    low, high = (np.ravel(b) for b in (specs.action.minimum, specs.action.maximum))
    if (action < low - 1e-4).any() or (action > high + 1e-4).any():
        raise _refusal(
            path,
            f"'action' goes from {action.min():g} to {action.max():g}, "
            f"outside of {low.min():g} to {high.max():g}",
        )
    if not np.isin(discount, (0.0, 1.0)).all():
        raise _refusal(path, "'discount' is neither 0 (a true terminal) nor 1 everywhere")


def _write(target: Path, info: Any, rows: np.ndarray, segment_length: int) -> None:
    """Writes rows as a checkpoint with one table; the newest that fit, in whole segments."""
    count = min(len(rows) // segment_length, info.max_size)
    rows = rows[len(rows) - count * segment_length :]
    segments = rows.reshape(count, segment_length, -1)
    episode = _key()
    with (
        offline.writer(target / offline.ITEMS) as add_item,
        offline.writer(target / offline.CHUNKS) as add_chunk,
    ):
        for number, segment in enumerate(segments):
            chunk = _chunk(segment, episode, number)
            add_chunk(chunk.SerializeToString())
            add_item(_item(chunk).SerializeToString())
    table = offline.table_of(info)
    table.rate_limiter.delete_count = -count  # items without inserts
    offline.write_tables(target, [table])


def _chunk(segment: np.ndarray, episode: int, number: int) -> Any:
    """A segment `[L, row]` as a chunk of one step, as `collect.writer` sends it."""
    chunk = schema_pb2.ChunkData(
        chunk_key=_key(), data_tensors_len=1, data_uncompressed_size=segment.nbytes
    )
    chunk.sequence_range.episode_id = episode
    chunk.sequence_range.start = chunk.sequence_range.end = number
    tensor = chunk.data.tensors.add(dtype=1)  # DT_FLOAT
    for size in (1, *segment.shape):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = bytes(cramjam.snappy.compress_raw(segment.tobytes()))
    return chunk


def _item(chunk: Any) -> Any:
    """The item of a chunk."""
    item = schema_pb2.PrioritizedItem(key=_key(), table=REPLAY, priority=1.0)
    item.inserted_at.GetCurrentTime()
    column = item.flat_trajectory.columns.add(squeeze=True)
    column.chunk_slices.add(chunk_key=chunk.chunk_key, offset=0, length=1)
    return item


def _key() -> int:
    """A random number, as Reverb draws for keys."""
    return secrets.randbits(64)
