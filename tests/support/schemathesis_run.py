"""Schemathesis against a running service."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from backend.shared.testing.programs import REPOSITORY


def run_schemathesis(url: str, *, token: str, folder: Path, max_examples: int = 15) -> None:
    """Send the service at `url` whatever its schema allows, and what it does not; any 5xx or answer off the schema fails."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            str(REPOSITORY / "schemathesis.toml"),
            "run",
            f"{url}/openapi.json",
            "--header",
            f"Authorization: Bearer {token}",
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            str(max_examples),
            "--seed",
            "1",
            "--continue-on-failure",
            "--warnings",
            "off",
            "--suppress-health-check",
            "all",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
