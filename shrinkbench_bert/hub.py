"""Reaching the model and data hub, or saying at once that it cannot be reached."""

from functools import cache

import datasets
import huggingface_hub
from huggingface_hub import constants

_TIMEOUT_S = 5.0


@cache
def hub_reachable() -> bool:
    """Say whether the hub answers; if not, let this process use local copies only.

    Without this, every file of every call is retried for half a minute before it fails. Asked once
    per process, through the client's own session, so that proxies and certificates are the user's.
    """
    if not huggingface_hub.is_offline_mode():
        try:
            huggingface_hub.get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_S)
            return True
        except Exception:  # whatever the HTTP client raises, the answer is the same
            constants.HF_HUB_OFFLINE = True
            datasets.config.HF_HUB_OFFLINE = True
    return False
