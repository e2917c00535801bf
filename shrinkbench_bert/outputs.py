"""Whether output can go where it is told to, looked at before there is any."""

import os
from collections.abc import Iterable
from pathlib import Path

from shrinkbench_bert.errors import UserError


def check_folder(option: str, folder: Path) -> None:
    """Raise UserError, naming the option, unless a folder is there or only has to be made."""
    _check(option, folder, (folder, *folder.parents))


def check_file(option: str, file: Path) -> None:
    """Raise UserError, naming the option, if a file is to be a folder, or lies below another file."""
    if file.is_dir():
        raise UserError(f"{option} {str(file)!r} is a folder: give the name of a file in it")
    _check(option, file, file.parents)


def _check(option: str, path: Path, folders: Iterable[Path]) -> None:
    nearest = next(folder for folder in folders if os.path.lexists(folder))
    if not nearest.is_dir():
        raise UserError(f"{option} {str(path)!r}: {str(nearest)!r} is no folder; give another {option}")
