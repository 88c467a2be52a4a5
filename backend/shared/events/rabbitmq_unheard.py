"""What was told before anybody listened to it, sent on its way once more."""

from __future__ import annotations

from aio_pika import DeliveryMode, Message, RobustConnection
from aio_pika.abc import AbstractIncomingMessage


async def tell_again(connection: RobustConnection, *, unheard: str, exchange: str) -> None:
    """Publish each message that waits in the queue `unheard` to `exchange` again, and take it out.

    What still nobody listens to comes back to the queue. Whoever dies on the way leaves a message twice, and loses none.
    """
    async with connection.channel(on_return_raises=True) as channel:
        # A queue that is not yet up after a restart of the broker says that it is empty. One that has kept something is up.
        await channel.default_exchange.publish(
            Message(b"", delivery_mode=DeliveryMode.PERSISTENT), routing_key=unheard
        )
        queue = await channel.declare_queue(unheard, passive=True, robust=False)
        target = await channel.get_exchange(exchange, ensure=False)
        for _ in range(queue.declaration_result.message_count or 0):
            message = await queue.get(fail=False)
            if message is None:
                return  # another process does the same
            if message.exchange:  # and not what was put there above
                await target.publish(_copy(message), routing_key=message.routing_key or "")
            await message.ack()


def _copy(message: AbstractIncomingMessage) -> Message:
    return Message(
        message.body,
        headers=message.headers,
        content_type=message.content_type,
        correlation_id=message.correlation_id,
        message_id=message.message_id,
        delivery_mode=DeliveryMode.PERSISTENT,
    )
