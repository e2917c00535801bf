"""Numbers as the page stores them."""

from __future__ import annotations

import math
from typing import Any


def short(value: Any) -> float | None:
    """Round to six digits, more than anything shown; None where there is no number."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
