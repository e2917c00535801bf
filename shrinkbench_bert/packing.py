"""Per-example numbers as one short JSON string: float32, little endian, deflated, base64."""

import base64
import binascii
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shrinkbench_bert.errors import UserError

_FORMAT = np.dtype("<f4")


def pack_numbers(values: Sequence[float]) -> str:
    """Pack numbers, in the order of the examples; `unpack_numbers` gives them back as float32."""
    return base64.b64encode(zlib.compress(np.asarray(values, _FORMAT).tobytes(), 9)).decode()


def unpack_numbers(text: str, n: int) -> NDArray[np.float64]:
    """Unpack `n` numbers. Raises UserError for a text that does not hold exactly so many."""
    size = n * _FORMAT.itemsize
    inflate = zlib.decompressobj()
    try:
        # At most one byte too many is inflated, whatever the text claims to hold.
        raw = inflate.decompress(base64.b64decode(text, validate=True), size + 1)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise UserError(
            f"packed numbers are damaged ({error}): move the result away, and its cell is run again"
        ) from error
    if len(raw) != size or not inflate.eof:
        raise UserError(
            f"packed numbers are damaged ({n} of them are expected): move the result away, and its cell "
            "is run again"
        )
    return np.frombuffer(raw, _FORMAT).astype(np.float64)
