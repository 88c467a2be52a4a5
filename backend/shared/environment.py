"""Where a process finds its settings, and how a URL may be shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

STACK_ENV = Path(".tandem") / "stack.env"

_UNREADABLE_URL = "<a URL that cannot be read>"
SECRET_PARAMETER = re.compile(
    r"(?i)\b(\w*(?:password|passfile|passphrase|token|secret)|authmechanismproperties)=[^&#\s]*"
)
"""A parameter of a URL that must not be shown, up to the next one."""


def load_environment(
    start: Path | None = None, *, environ: Mapping[str, str] | None = None
) -> Mapping[str, str]:
    """The environment of this process, on top of what a running embedded stack has written.

    The nearest `.tandem/stack.env` at or above `start` (the working directory, if not given) is read; variables that the
    process has been given itself win. No file, or one that may not be read, adds nothing.
    """
    given = os.environ if environ is None else environ
    path = find_stack_env(start)
    return {**(parse_env_file(path) if path else {}), **given}


def find_stack_env(start: Path | None = None) -> Path | None:
    """The nearest `.tandem/stack.env` at or above `start`, if there is one."""
    try:
        here = (start or Path.cwd()).resolve()
    except OSError:  # the working directory is gone
        return None
    for folder in (here, *here.parents):
        path = folder / STACK_ENV
        if os.access(path, os.R_OK) and path.is_file():
            return path
    return None


def parse_env_file(path: Path) -> dict[str, str]:
    """The `KEY=VALUE` lines of a file; blank lines, comments and lines without `=` are passed over."""
    values: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key and not key.startswith("#"):
            values[key.strip()] = value.strip()
    return values


def mask_url(url: object) -> str:
    """`url` as it may be shown: without password, and without secrets among its parameters. Never raises."""
    try:
        text = str(url)
        scheme, separator, rest = text.partition("://")
        if not separator:
            return _UNREADABLE_URL if text else ""
        # A password that was not escaped may hold '/', '?', '#' or '@': all up to the last '@' is taken for it.
        account, at, place = rest.rpartition("@")
        user, colon, _ = account.partition(":")
        shown = f"{user}{':***' if colon else ''}{at}{place}"
        return SECRET_PARAMETER.sub(lambda found: f"{found.group(1)}=***", f"{scheme}://{shown}")
    except Exception:  # noqa: BLE001 - this runs while an error is being reported: nothing may go wrong here
        return _UNREADABLE_URL
