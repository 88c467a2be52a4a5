"""The stream of all services and the consumer of each, made in JetStream where they are not there."""

from __future__ import annotations

from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig
from nats.js.errors import NotFoundError

SUBJECTS = ("events.>", "commands.>")
KEPT_SECONDS = 14 * 86_400.0
"""So long a stream that is made here keeps messages, for a consumer that is away or begins later."""


async def ensure_stream(jetstream: JetStreamContext, name: str) -> bool:
    """Answers whether it had to be made. One that is there keeps its limits and replicas."""
    try:
        there = await jetstream.stream_info(name)
    except NotFoundError:
        await jetstream.add_stream(
            StreamConfig(
                name=name,
                subjects=list(SUBJECTS),
                retention=RetentionPolicy.LIMITS,
                max_age=KEPT_SECONDS,
            )
        )
        return True
    if missing := sorted(set(SUBJECTS) - set(there.config.subjects or ())):
        await jetstream.update_stream(
            there.config.evolve(subjects=[*(there.config.subjects or ()), *missing])
        )
    return False


async def ensure_consumer(jetstream: JetStreamContext, stream: str, config: ConsumerConfig) -> bool:
    """Answers whether it had to be made. One that is there stays as it is: a later version of the service may hear more."""
    try:
        await jetstream.consumer_info(stream, str(config.durable_name))
    except NotFoundError:
        await jetstream.add_consumer(stream, config=config)
        return True
    return False
