"""The AsyncAPI document of a service, made by FastStream of the models that the messages are checked with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from faststream.specification.asyncapi import AsyncAPI
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from faststream.specification.asyncapi.v3_0_0.schema import Message as MessageObject
from faststream.specification.schema import BrokerSpec, Operation, PublisherSpec, SubscriberSpec
from faststream.specification.schema import Message as MessageSpec
from pydantic import create_model

from .envelope import Envelope, Message
from .message_api import MessageApi

_SOMEWHERE = "nats://broker"
"""FastStream describes no channel without a server; this one is taken out again."""
_HEADERS: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "content-type": {"type": "string", "const": "application/json"},
        "correlation_id": {"type": "string", "description": "That of the payload."},
        "traceparent": {"type": "string", "description": "W3C trace context, where the teller was traced."},
    },
}


def asyncapi_document(
    api: MessageApi, *, title: str, version: str, description: str = "", broker_url: str | None = None
) -> ApplicationSchema:
    """AsyncAPI 3.0: a channel for each subject, its message an envelope round the model's data, and which way it goes.

    `broker_url` names the server; of an account or a password in it nothing is shown.
    """
    servers = _servers(broker_url) if broker_url else []
    broker = _Described(
        specification=BrokerSpec(
            url=servers or [_SOMEWHERE],
            protocol=urlsplit(broker_url or _SOMEWHERE).scheme,
            protocol_version=None,
            description=None,
            tags=(),
            security=None,
        ),
        subscribers=[_Endpoint.hearing(kind) for kind in api.hears],
        publishers=[_Endpoint.telling(kind) for kind in api.tells],
    )
    made = AsyncAPI(
        cast("Any", broker),  # all that is asked of a broker here is how it is described
        title=title,
        version=version,
        description=description,
        identifier=f"urn:tandem:{api.service}",
    ).to_specification()
    document = cast("ApplicationSchema", made)
    if document.components is not None and document.components.messages is not None:
        messages = document.components.messages
        messages.update({key: _completed(found) for key, found in messages.items()})
    if not servers:
        document.servers = {}
        for channel in document.channels.values():
            channel.servers = None
    return document


@dataclass(frozen=True, kw_only=True)
class _Config:
    title_: str


@dataclass(frozen=True, kw_only=True)
class _EndpointSpecification:
    config: _Config
    include_in_schema: bool = True


@dataclass(frozen=True, kw_only=True)
class _Endpoint:
    """One kind of message, told or heard, as FastStream looks at a subscriber or a publisher."""

    name: str
    spec: SubscriberSpec | PublisherSpec

    @property
    def specification(self) -> _EndpointSpecification:
        return _EndpointSpecification(config=_Config(title_=self.name))

    def schema(self) -> dict[str, SubscriberSpec | PublisherSpec]:
        return {self.name: self.spec}

    @classmethod
    def hearing(cls, kind: type[Message]) -> _Endpoint:
        # A later version has more fields, which are passed over.
        name = f"receive.{kind.subject()}"
        spec = SubscriberSpec(
            address=kind.subject(),
            description=kind.__doc__,
            bindings=None,
            operation=_operation(name, kind, version=None),
        )
        return cls(name=name, spec=spec)

    @classmethod
    def telling(cls, kind: type[Message]) -> _Endpoint:
        name = f"send.{kind.subject()}"
        spec = PublisherSpec(
            address=kind.subject(),
            description=kind.__doc__,
            bindings=None,
            operation=_operation(name, kind, version=kind.version),
        )
        return cls(name=name, spec=spec)


@dataclass(frozen=True, kw_only=True)
class _Described:
    """As much of a broker as its description needs."""

    specification: BrokerSpec
    subscribers: list[_Endpoint] = field(default_factory=list)
    publishers: list[_Endpoint] = field(default_factory=list)

    __hash__ = object.__hash__


def _operation(name: str, kind: type[Message], *, version: int | None) -> Operation:
    return Operation(
        bindings=None, message=MessageSpec(title=f"{name}:Message", payload=_payload(kind, version=version))
    )


def _payload(kind: type[Message], *, version: int | None) -> dict[str, Any]:
    """The schema of an envelope with a message of this kind, as it is on the wire."""
    fixed: dict[str, Any] = {
        "subject": (Literal[kind.subject()], ...),
        "type": (Literal[kind.message_type], ...),
        "aggregate_type": (Literal[kind.aggregate_type], ...),
        "data": (kind, ...),
    }
    if version is not None:
        fixed["version"] = (Literal[version], ...)
    model = create_model(f"{kind.__name__}Envelope", __base__=Envelope, **fixed)
    return model.model_json_schema(mode="serialization")


def _completed(found: MessageObject) -> MessageObject:
    """With what FastStream has no place for. The correlation id is in the payload whoever delivers, in a header not always."""
    correlation = found.correlationId
    return found.model_copy(
        update={
            "headers": _HEADERS,
            "contentType": "application/json",
            "correlationId": correlation
            and correlation.model_copy(update={"location": "$message.payload#/correlation_id"}),
        }
    )


def _servers(url: str) -> list[str]:
    """Each server's address, and nothing of who logs in there: in a password there may be anything but an @."""
    found = []
    for one in re.split(r",(?=[a-z]+://)", url):
        scheme, _, rest = one.partition("://")
        hosts = re.split(r"[/?#]", rest.rpartition("@")[2])[0]
        found += [f"{scheme}://{host}" for host in hosts.split(",") if host]
    return found
