"""Where a demo works, where its report goes, and what is kept of one that did not hold."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backend.shared.domain.errors import ConfigurationError
from backend.shared.testing.programs import remove_left_overs, state_directory
from backend.shared.testing.server_memory import remove_with_servers


@contextmanager
def private_folder(name: str) -> Iterator[Path]:
    """A folder for this run alone, gone afterwards; those of runs of the same `name` that were killed go as well."""
    demos = state_directory() / name
    demos.mkdir(mode=0o711, exist_ok=True)
    remove_left_overs(demos)
    folder = demos / str(os.getpid())
    folder.mkdir(mode=0o711)
    try:
        yield folder
    finally:
        remove_with_servers(folder)


def report_path(given: Path | None, *, default: Path) -> Path:
    """Where the report will go; that it can be written is known before anything starts."""
    path = (given or default).absolute()
    if given is None:
        path.parent.mkdir(exist_ok=True)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigurationError(f"--json: {path} cannot be written")
    return path


def keep_logs(logs: Path, *, kept: Path) -> None:
    """Copy the logs of a run to where they outlive it."""
    if logs.is_dir():
        shutil.copytree(logs, kept, dirs_exist_ok=True)


def shown(path: Path) -> str:
    """A path as the user would write it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
