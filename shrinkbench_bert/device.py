"""Where models live: naming a device of this machine."""

import torch

from shrinkbench_bert.errors import UserError


def resolve_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `mps` into a device. Raises UserError if it is not there."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.insert(0, "mps")
    if torch.cuda.is_available():
        found.insert(0, "cuda")
    if name == "auto":
        return torch.device(found[0])
    if name not in found:
        raise UserError(f"device = {name!r}: this machine has none (accepted here: auto, {', '.join(found)})")
    return torch.device(name)
