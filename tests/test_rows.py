"""Packed rows: what goes in comes out, whatever the sensors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sactory import rows


class Spec:
    def __init__(self, *shape):
        self.shape = shape


def pack(fmt, values):
    row = np.empty(fmt.size, np.float32)
    for name, part in fmt.slices.items():
        row[part] = values[name].ravel()
    return row


def values_of(fmt, seed=0):
    random = np.random.default_rng(seed)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in fmt.fields}


def test_flat_row_has_the_published_fields_in_order():
    fmt = rows.flat_row_format(Spec(5), Spec(2))
    assert [name for name, _ in fmt.fields] == [
        "observation",
        "action",
        "reward",
        "discount",
        "next_observation",
        "policy_step",
    ]
    assert fmt.size == 5 + 2 + 1 + 1 + 5 + 1
    assert (fmt.kind, fmt.version) == ("flat", 1)


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.dictionaries(
        st.sampled_from(["arm", "eye", "touch"]),
        st.lists(st.integers(1, 3), max_size=3).map(tuple),
        min_size=1,
    ),
    batch=st.lists(st.integers(1, 3), max_size=2),
)
def test_pack_then_unpack_is_the_identity(shapes, batch):
    fmt = rows.flat_row_format({k: Spec(*s) for k, s in shapes.items()}, Spec(2))
    values = values_of(fmt)
    packed = np.broadcast_to(pack(fmt, values), (*batch, fmt.size))
    unpacked = fmt.unpack(packed)
    assert list(unpacked["observation"]) == list(shapes)
    for name, shape in fmt.fields:
        group, _, key = name.partition("/")
        got = unpacked[group][key] if key else unpacked[name]
        assert got.shape == (*batch, *shape)
        np.testing.assert_array_equal(got, np.broadcast_to(values[name], (*batch, *shape)))


def test_tensorflow_unpacks_like_numpy():
    import tensorflow as tf

    fmt = rows.flat_row_format({"a": Spec(2, 3), "b": Spec()}, Spec(2))
    packed = np.stack([pack(fmt, values_of(fmt, i)) for i in range(4)])
    by_numpy, by_tf = fmt.unpack(packed), fmt.unpack(tf.constant(packed))
    tf.nest.assert_same_structure(by_numpy, by_tf)
    for x, y in zip(tf.nest.flatten(by_numpy), tf.nest.flatten(by_tf)):
        np.testing.assert_array_equal(x, y.numpy())


def test_format_survives_json_and_refuses_another_version():
    fmt = rows.flat_row_format(Spec(5), Spec(2))
    assert rows.RowFormat.from_json(fmt.to_json()) == fmt
    with pytest.raises(ValueError, match="version 99"):
        rows.RowFormat.from_json({**fmt.to_json(), "version": 99})


def test_a_span_covers_all_sensors_of_a_group():
    fmt = rows.flat_row_format({"a": Spec(2, 3), "b": Spec()}, Spec(2))
    assert fmt.span("observation") == slice(0, 7)
    assert fmt.span("action") == slice(7, 9)
    assert fmt.span("next_observation") == slice(11, 18)


def test_a_sound_row_is_finite_and_within_the_limit():
    block = np.zeros((2, 4, 3), np.float32)
    for i, bad in enumerate((np.nan, -np.inf, 2 * rows.LIMIT)):
        block[1, i, i] = bad
    block[0, 0] = [rows.LIMIT, -rows.LIMIT, 0]
    np.testing.assert_array_equal(rows.sound(block), [[True] * 4, [False] * 3 + [True]])
    assert not rows.all_sound(block) and not rows.all_sound(block[1, :1])
    assert rows.all_sound(block[0]) and rows.all_sound(block[:0])
