"""Per-example numbers in JSON: exact, short, and refused when damaged."""

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrinkbench_bert.errors import UserError
from shrinkbench_bert.packing import pack_numbers, unpack_numbers


@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_float32_survives_exactly(values):
    assert unpack_numbers(pack_numbers(values), len(values)).tolist() == values


def test_the_format_is_little_endian_float32_deflated_in_base64():
    raw = zlib.decompress(base64.b64decode(pack_numbers([1.0, -2.5])))
    assert raw == bytes.fromhex("0000803f000020c0")


def test_a_thousand_classes_take_little_room():
    labels = np.random.default_rng(0).integers(0, 2, 1000).tolist()
    assert len(pack_numbers(labels)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "",
        "***",
        "abc",
        base64.b64encode(b"not deflated").decode(),
        pack_numbers([1.0]),
        pack_numbers([1.0, 2.0, 3.0]),
        base64.b64encode(zlib.compress(bytes(8))[:-3]).decode(),
        base64.b64encode(zlib.compress(bytes(10**8))).decode(),
    ],
    ids=["empty", "no base64", "odd", "no deflate", "too few", "too many", "cut", "bomb"],
)
def test_what_does_not_hold_two_numbers_is_refused(text):
    with pytest.raises(UserError, match="packed numbers are damaged"):
        unpack_numbers(text, 2)
