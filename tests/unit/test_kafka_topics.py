"""A topic that could not be made is asked for again, and one that is there is not."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError  # type: ignore[import-untyped]
from faststream.kafka import Topic
from faststream.kafka.helpers.admin import AdminService, CreateResult

from backend.shared.events.envelope import Envelope
from backend.shared.events.over_kafka import KafkaTransport
from tests.support.broker_room import Knocked, Rang, tell


class Cluster:
    """What FastStream asks of a Kafka: it makes no topic while it `refuses`, and keeps what is for a topic that is there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, transport: KafkaTransport) -> None:
        self.refuses = False
        self.topics: set[str] = set()
        self.asked: list[str] = []
        self.kept: list[str] = []
        monkeypatch.setattr(AdminService, "create_topics", self._create)
        monkeypatch.setattr(transport.broker, "publish", self._publish)

    async def _create(self, topics: list[Topic]) -> list[CreateResult]:
        """As FastStream's: what goes wrong is told, not raised."""
        names = [topic.name for topic in topics]
        self.asked += names
        if self.refuses:
            return [CreateResult(name, TopicAuthorizationFailedError()) for name in names]
        self.topics |= set(names)
        return [CreateResult(name, None) for name in names]

    async def _publish(self, _body: bytes, *, topic: str, **_: Any) -> None:
        if topic not in self.topics:
            raise UnknownTopicOrPartitionError
        self.kept.append(topic)


@pytest.fixture
def transport() -> KafkaTransport:
    return KafkaTransport("kafka://there", name="t")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, transport: KafkaTransport) -> Cluster:
    return Cluster(monkeypatch, transport)


RANG = f"t.{Rang.subject()}"
KNOCKED = f"t.{Knocked.subject()}"


async def ring(transport: KafkaTransport, kind: type[Rang] = Rang) -> None:
    await tell(transport, Envelope.of(kind(number=1), correlation_id="1"))


async def test_a_topic_that_could_not_be_made_is_asked_for_again(
    transport: KafkaTransport, cluster: Cluster
) -> None:
    cluster.refuses = True
    with pytest.raises(UnknownTopicOrPartitionError):
        await ring(transport)
    cluster.refuses = False
    await ring(transport)
    assert cluster.asked == [RANG, RANG]
    assert cluster.kept == [RANG]


async def test_a_topic_that_is_there_is_asked_for_once(transport: KafkaTransport, cluster: Cluster) -> None:
    for kind in (Rang, Rang, Knocked, Rang):
        await ring(transport, kind)
    assert cluster.asked == [RANG, KNOCKED]


async def test_who_may_make_no_topic_publishes_to_those_that_are_there(
    transport: KafkaTransport, cluster: Cluster
) -> None:
    cluster.refuses = True
    cluster.topics.add(RANG)
    await ring(transport)
    await ring(transport)
    assert cluster.asked == [RANG]
    assert cluster.kept == [RANG, RANG]
