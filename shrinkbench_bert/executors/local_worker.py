"""Loaded by each local worker before it does anything else."""

import os
import signal

import torch
from distributed import Worker


def dask_setup(worker: Worker) -> None:
    """Ignore SIGINT, for Ctrl-C is for the run that started it; and take a GPU, if there are several.

    Workers are named by number: they take the GPUs in turn.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # NVML counts without initialising CUDA, which reads the variable only then; torch keeps no count until
    # then either. (Without NVML counting itself initialises it, and all workers take the first GPU.)
    if (gpus := torch.cuda.device_count()) > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[worker.name % gpus]
