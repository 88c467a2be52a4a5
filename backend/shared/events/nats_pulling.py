"""How messages are asked of JetStream: seldom, where there is nobody to answer."""

from __future__ import annotations

import asyncio

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext


class PatientPull:
    """A pull subscription as FastStream wants it, which fetches in a loop for as long as it runs.

    After some errors FastStream fetches again at once, some thousand times a second where there is no such consumer; after all others
    it begins the loop anew, at once too, and keeps the old one in a list. So there is one error here, and it takes its time.
    """

    def __init__(self, pull: JetStreamContext.PullSubscription, client: Client) -> None:
        self._pull = pull
        self._client = client

    async def fetch(self, batch: int, timeout: float) -> list[Msg]:  # noqa: ASYNC109 - FastStream says its name
        """Some messages. Raises the driver's `TimeoutError` after `timeout` seconds, and never sooner, for whatever reason there are none.

        Without a connection nothing is asked: the client would keep each request, and send all of them in the end.
        """
        clock = asyncio.get_running_loop()
        ends_at = clock.time() + timeout
        if self._client.is_connected:
            try:
                return await self._pull.fetch(batch=batch, timeout=timeout)
            except (NatsError, TimeoutError):
                pass
        await asyncio.sleep(ends_at - clock.time())
        raise NatsTimeoutError

    async def unsubscribe(self) -> None:
        """See the driver's."""
        await self._pull.unsubscribe()
