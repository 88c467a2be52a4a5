"""`docs/howto/add-a-service.md` is executed block by block, so that it cannot rot.

The info string of a block says what it is: `file=PATH` is written, `sh` and `python run` are run, `sql legacy` and `sql new`
go to that side, `ini env` is the environment, `sh serve` a server, and `text routes` what it answers.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx
import pytest

from backend.shared.testing.clusters import Databases
from backend.shared.testing.ports import LOOPBACK, free_port
from backend.shared.testing.processes import ServiceProcess
from backend.shared.testing.programs import REPOSITORY

PAGE = REPOSITORY / "docs" / "howto" / "add-a-service.md"
_BLOCK = re.compile(
    r"^```(?P<language>\w+)(?: (?P<what>[^\n]+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_ROUTE = re.compile(r"GET (?P<path>\S+) +(?P<status>\d{3})  (?P<said>.+)")
_PORT = "8007"


@dataclass(frozen=True)
class Block:
    """One fenced block of the page."""

    language: str
    what: str
    text: str


def blocks() -> Iterator[Block]:
    for found in _BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        yield Block(language=found["language"], what=found["what"] or "", text=found["text"])


@dataclass
class Walk:
    """Somebody who does what the page says, in a folder of her own. Her service's package is not inside `backend`."""

    folder: Path
    databases: Databases
    environment: dict[str, str] = field(default_factory=dict)
    server: ServiceProcess | None = None
    rows: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        inherited = {name: value for name, value in os.environ.items() if "DUAL_WRITE" not in name}
        self.environment = inherited | {
            "PATH": path,
            "PYTHONPATH": os.pathsep.join((str(self.folder), str(REPOSITORY))),
        }

    async def do(self, block: Block) -> None:
        if block.what.startswith("file="):
            self._write(self._own(block.what.removeprefix("file=")), self._own(block.text))
            return
        match block.language, block.what:
            case "sql", "legacy" | "new":
                await self._sql(block)
            case "ini", "env":
                self._take_environment(block.text)
            case "sh", "":
                self._run(["sh", "-eu", "-c", self._own(block.text)])
            case "python", "run":
                self._run([sys.executable, "-c", self._own(block.text)])
            case "sh", "serve":
                await self._serve(block.text)
            case "text", "routes":
                await self._ask(block.text)
            case unknown:
                raise AssertionError(f"nobody knows what to do with a block {unknown}")

    @staticmethod
    def _own(text: str) -> str:
        for written, here in (
            ("backend/library_service", "library_service"),
            ("backend.library_service", "library_service"),
            ("python scripts/", f"python {REPOSITORY}/scripts/"),
        ):
            text = text.replace(written, here)
        return text

    def _write(self, name: str, text: str) -> None:
        if name == "pyproject.toml":
            self._register(text)
            return
        path = self.folder / name
        assert path.parent.is_dir(), f"step 1 does not make the folder of {name}"
        path.write_text(text, encoding="utf-8")

    def _register(self, text: str) -> None:
        """What `make venv` does with the entry point."""
        groups = tomllib.loads(text)["project"]["entry-points"]
        lines = [
            f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in found.items())
            for group, found in groups.items()
        ]
        information = self.folder / "library-0.1.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: library\nVersion: 0.1\n")
        (information / "entry_points.txt").write_text("\n".join(lines))

    def _take_environment(self, text: str) -> None:
        given = dict(line.split("=", 1) for line in text.splitlines())
        given["LIBRARY_LEGACY_DATABASE_URL"] = self.databases.legacy_url
        given["LIBRARY_DATABASE_URL"] = self.databases.new_url
        self.environment |= given

    def _run(self, argv: list[str]) -> None:
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        assert done.returncode == 0, f"{argv[-1]}\n{done.stdout}\n{done.stderr}"

    async def _sql(self, block: Block) -> None:
        url = self.databases.legacy_url if block.what == "legacy" else self.databases.new_url
        connection = await asyncpg.connect(url)
        try:
            if not block.text.startswith("SELECT"):
                await connection.execute(block.text)
                return
            query, *expected = [line for line in block.text.splitlines() if line]
            found = [[str(value).lower() for value in row] for row in await connection.fetch(query)]
        finally:
            await connection.close()
        assert found == [
            [cell.strip().lower() for cell in row.removeprefix("--").split("|")] for row in expected
        ]

    async def _serve(self, command: str) -> None:
        port = str(free_port())
        program, *arguments = self._own(command).replace(_PORT, port).split()
        self.server = ServiceProcess(
            [sys.executable, "-m", program, *arguments],
            name="library",
            env=self.environment,
            log=self.folder / "server.log",
            ready_url=f"http://{LOOPBACK}:{port}/readyz",
            cwd=self.folder,
        )
        await self.server.start()

    async def _ask(self, text: str) -> None:
        assert self.server is not None
        base = str(self.server.ready_url).removesuffix("/readyz")
        async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
            for line in text.splitlines():
                route = _ROUTE.fullmatch(line)
                assert route, f"not understood: {line}"
                answer = await client.get(route["path"])
                assert answer.status_code == int(route["status"]), answer.text
                if route["path"] == "/metrics":
                    assert route["said"] in answer.text


@pytest.fixture
def walk(tmp_path: Path, databases: Databases) -> Iterator[Walk]:
    walk = Walk(folder=tmp_path, databases=databases)
    yield walk
    if walk.server is not None:
        asyncio.run(walk.server.terminate())


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_every_block_of_the_page_runs(walk: Walk) -> None:
    for block in blocks():
        await walk.do(block)


def test_there_are_ten_steps_and_every_block_is_understood() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^## (\d+)\.", text, re.MULTILINE) == [str(number) for number in range(1, 11)]
    assert len(list(blocks())) * 2 == len(re.findall(r"^```", text, re.MULTILINE))
