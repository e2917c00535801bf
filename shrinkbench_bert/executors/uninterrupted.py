"""Loaded by each local worker: Ctrl-C is for the run that started it, which then ends it."""

import signal


def dask_setup(worker: object) -> None:
    """Let the worker process ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
