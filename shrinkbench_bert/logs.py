"""The log of a run: one line per stage, with its cell and its seconds."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shrinkbench_bert.errors import UserError

_FORMAT = "%(asctime)s %(levelname)s [%(process)d] %(message)s"


@contextmanager
def logging_to(path: Path | None) -> Iterator[None]:
    """Append the package's log to a file for a block. Raises UserError if it cannot be written."""
    if path is None:
        yield
        return
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"log file {str(path)!r}: {error.strerror or error}; give a path that can be written to"
        ) from error
    handler.setFormatter(logging.Formatter(_FORMAT))
    logger = logging.getLogger("shrinkbench_bert")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()
