"""A RabbitMQ of our own, from Debian's package: on the loopback address, beside whatever the package itself runs."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from backend.shared.domain.errors import ConfigurationError

from .own_server import OwnServer
from .ports import LOOPBACK, free_port

# The package's own script, past the one in PATH that changes to the package's account and folders.
_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_GREETING = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = b"\x01"


class RabbitServer(OwnServer):
    """One node in no cluster, without plugins, with its own register of names (epmd), which ends with it."""

    kind = "message broker"
    start_seconds = 120.0  # five of a processor's own, on a machine that may have other work

    def __init__(self, directory: Path, *, port: int | None = None) -> None:
        if not _PROGRAM.exists():
            raise ConfigurationError("RabbitMQ is not installed: apt-get install rabbitmq-server")
        super().__init__(directory, port=port)
        self._register_port, self._node_port = free_port(), free_port()

    @property
    def url(self) -> str:
        """`amqp://…`."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/"

    def argv(self) -> Sequence[str]:
        """The command that starts it: the register first, as its child, or it would leave one behind that outlives it."""
        return [
            "/bin/sh",
            "-c",
            'epmd & until epmd -names >/dev/null 2>&1; do sleep 0.05; done; exec "$0"',
            str(_PROGRAM),
        ]

    def env(self) -> Mapping[str, str]:
        """All of its files are in our folder, and none of the package's are read."""
        files = {
            "RABBITMQ_CONFIG_FILE": ("rabbitmq.conf", f"listeners.tcp.1 = {LOOPBACK}:{self.port}\n"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": (
                "advanced.config",
                f"[{{kernel, [{{inet_dist_use_interface, {{{LOOPBACK.replace('.', ',')}}}}}]}}].\n",
            ),
            "RABBITMQ_ENABLED_PLUGINS_FILE": ("enabled_plugins", "[].\n"),
            "RABBITMQ_CONF_ENV_FILE": ("rabbitmq-env.conf", ""),
        }
        for name, text in files.values():
            (self.directory / name).write_text(text, encoding="utf-8")
        return {
            **super().env(),
            **{variable: str(self.directory / name) for variable, (name, _) in files.items()},
            "HOME": str(self.directory),  # of the cookie
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(self._register_port),
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_NODENAME": f"tandem{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_LOGS": "-",
        }

    def has_on_disk(self, queue: str) -> bool:
        """Whether a quorum queue would outlive a kill: this server writes the list of them half a second after it has changed."""
        lists = self.directory.glob("data/*/quorum/*/names.dets")
        return any(queue.encode() in path.read_bytes() for path in lists)

    def answers(self) -> bool:
        """Whether it greets who connects."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=0.5) as connection:
                connection.sendall(_GREETING)
                return connection.recv(1) == _METHOD_FRAME
        except OSError:
            return False
