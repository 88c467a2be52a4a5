"""Who is at work, for records and logs."""

from __future__ import annotations

import getpass
import os
import socket


def system_user() -> str:
    """The name of the user that this process runs as; a container's user may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def this_process() -> str:
    """Host and number of this process."""
    return f"{socket.gethostname()}:{os.getpid()}"
