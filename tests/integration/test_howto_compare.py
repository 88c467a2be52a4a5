"""`docs/howto/compare-two-tables.md` is executed block by block, so that it cannot rot."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import asyncpg

from backend.shared.testing.clusters import Databases
from backend.shared.testing.programs import REPOSITORY

PAGE = REPOSITORY / "docs" / "howto" / "compare-two-tables.md"
_BLOCK = re.compile(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


async def test_the_page_is_true(databases: Databases) -> None:
    urls = {"a": databases.legacy_url, "b": databases.new_url}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "A": urls["a"], "B": urls["b"], "PATH": programs}
    said, commands = "", 0
    for language, what, text in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "sql":
            connection = await asyncpg.connect(urls[what])
            await connection.execute(text)
            await connection.close()
        elif language == "sh":
            process = await asyncio.create_subprocess_shell(text, env=env, stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
            said, commands = out.decode(), commands + 1
            assert f"exit={process.returncode}" == what
        else:
            assert said == text
    assert commands == 2
