"""The URL alone says which broker; and says nothing of a password where it is wrong."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from backend.shared.domain.errors import ConfigurationError
from backend.shared.events.over_kafka import servers_of
from backend.shared.events.transport import transport_for
from backend.shared.testing import rabbit_server

MODULES = {
    "nats": ("over_nats", "NatsTransport", "nats"),
    "amqp": ("over_rabbitmq", "RabbitTransport", "rabbitmq"),
    "amqps": ("over_rabbitmq", "RabbitTransport", "rabbitmq"),
    "kafka": ("over_kafka", "KafkaTransport", "kafka"),
}


@pytest.mark.parametrize("scheme", MODULES)
def test_the_scheme_says_which(scheme: str) -> None:
    module, name, _ = MODULES[scheme]
    wanted = getattr(importlib.import_module(f"backend.shared.events.{module}"), name)
    assert isinstance(transport_for(f"{scheme}://there:1234"), wanted)


@pytest.mark.parametrize("scheme", MODULES)
def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    module, _, extra = MODULES[scheme]
    monkeypatch.delitem(sys.modules, f"backend.shared.events.{module}", raising=False)
    library = {"nats": "nats", "rabbitmq": "rabbit", "kafka": "kafka"}[extra]
    monkeypatch.setitem(sys.modules, f"faststream.{library}", None)
    with pytest.raises(ConfigurationError, match=rf"^BROKER_URL: .*install the extra '{extra}'$"):
        transport_for(f"{scheme}://there:1234")


@pytest.mark.parametrize(
    "url",
    [
        "redis://ann:secret@there",
        "there:secret",
        "",
        "amqp://ann:sec/ret@there",
        "amqp://ann:secret@there:secret",
        "kafka://ann:secret@there",
        "kafka://there:secret",
        "kafka://there/secret",
        "kafka://",
        "kafka://one,,two",
    ],
)
def test_what_is_wrong_is_said_without_the_url(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^BROKER_URL: ") as caught:
        transport_for(url)
    assert "sec" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_servers_of_kafka() -> None:
    assert servers_of("kafka://one,two:1234,[::1]:5/") == ["one:9092", "two:1234", "[::1]:5"]


@pytest.mark.parametrize("scheme", ["nats", "amqp"])
def test_what_describes_a_broker_has_no_password(scheme: str) -> None:
    transport = transport_for(f"{scheme}://ann:secret@there:1234")
    described = transport.broker.specification.url  # type: ignore[attr-defined] # each has one; the port does not ask for it
    assert "secret" not in str(described)


def test_a_missing_rabbitmq_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rabbit_server, "_PROGRAM", tmp_path / "rabbitmq-server")
    with pytest.raises(ConfigurationError, match="apt-get install rabbitmq-server"):
        rabbit_server.RabbitServer(tmp_path)
