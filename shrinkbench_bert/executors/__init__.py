"""Where the missing cells of a grid are run: in this process, in several, or on a Dask cluster."""

from shrinkbench_bert.executors.base import Executor
from shrinkbench_bert.executors.in_process import InProcess

__all__ = ["Executor", "InProcess"]
