"""`docs/howto/mongodb.md` is executed block by block, so that it cannot rot."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend.shared.testing.clusters import Databases
from backend.shared.testing.programs import REPOSITORY

PAGE = REPOSITORY / "docs" / "howto" / "mongodb.md"
_BLOCK = re.compile(r"^```(sh|python|text)(?: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WAIT_SECONDS = 60.0


class Reader:
    """Does what the page says."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        self._env = env
        self.said = ""
        self.commands = 0

    def python(self, text: str) -> None:
        """A program."""
        self._run([sys.executable, "-c", text], code=0)

    def sh(self, text: str, how: str) -> None:
        """A command that ends as it says; one that has to `wait` for something is tried again."""
        wanted = int(how.removeprefix("exit=")) if how.startswith("exit=") else 0
        self.commands += 1
        deadline = time.monotonic() + (WAIT_SECONDS if how == "wait" else 0.0)
        script = text.replace("-c backend/", f"-c {REPOSITORY}/backend/")
        while not self._run(["bash", "-o", "pipefail", "-c", script], code=wanted, deadline=deadline):
            time.sleep(0.5)  # another process is at work

    @contextmanager
    def background(self, text: str) -> Iterator[None]:
        """A command that runs beside the others from here on."""
        with (self._folder / "background.log").open("w") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {text}"], env=self._env, stdout=log, stderr=log, cwd=self._folder
            )
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)

    def _run(self, argv: list[str], *, code: int, deadline: float = 0.0) -> bool:
        done = subprocess.run(
            argv, env=self._env, capture_output=True, text=True, check=False, timeout=120, cwd=self._folder
        )
        self.said = done.stdout
        if done.returncode != code and time.monotonic() < deadline:
            return False
        assert done.returncode == code, (argv[-1], done.stdout, done.stderr)
        return True


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_is_true(databases: Databases, document_url: str, tmp_path: Path) -> None:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {
        **os.environ,
        "LEGACY_DATABASE_URL": document_url,
        "DATABASE_URL": databases.new_url,
        "TASK_DUAL_WRITE_PHASE": "off",
        # What a page of a few documents cannot wait for.
        "DUAL_WRITE_LAG_WINDOW": "1",
        "DUAL_WRITE_MIN_SHADOW_READS": "0",
        "PATH": programs,
    }
    reader = Reader(tmp_path, env)
    blocks = iter(_BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    for language, how, text in blocks:
        if how == "background":
            with reader.background(text):
                _read(blocks, reader)
        else:
            _one(language, how, text, reader)
    assert reader.commands == 9


def _read(blocks: Iterator[tuple[str, str, str]], reader: Reader) -> None:
    for language, how, text in blocks:
        _one(language, how, text, reader)


def _one(language: str, how: str, text: str, reader: Reader) -> None:
    if language == "python":
        reader.python(text)
    elif language == "sh":
        reader.sh(text, how)
    else:
        assert reader.said == text
