"""The collectors of messages between services and of sagas; a part of `Metrics`, whose rules hold here too."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from backend.shared.domain.phases import Side
from backend.shared.observability.labels import (
    BrokerState,
    DeclaredLabels,
    DeliveryOutcome,
    TakingOutcome,
    closed,
)
from backend.shared.observability.samples import not_negative, set_state

_HANDLING_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# From a broker next door to one that was away for a week-end.
_AGE_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0, 86_400.0)
_SAGA_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 86_400.0)


class PrunedTable(StrEnum):
    """What grows with every message, and is cut off at its old end."""

    INBOX = "inbox"
    DEAD_LETTER = "dead_letter"
    EVENT = "event"


class MessageMetrics:
    """What a service delivers and takes in, what waits, and how its sagas stand."""

    def __init__(self, registry: CollectorRegistry, labels: DeclaredLabels) -> None:
        self._labels = labels
        self._make_counts(registry)
        self._make_states(registry)
        self._make_saga_collectors(registry)

    def _make_counts(self, registry: CollectorRegistry) -> None:
        self.deliveries = Counter(
            "dualwrite_deliveries_total",
            "Tries to hand a message of the outbox to the broker, and what became of them.",
            ("service", "type", "outcome"),
            registry=registry,
        )
        self.messages = Counter(
            "dualwrite_messages_total",
            "Tries to take a message in, and what became of them.",
            ("service", "type", "outcome"),
            registry=registry,
        )
        self.handling_duration = Histogram(
            "dualwrite_message_handling_duration_seconds",
            "Time of one try to take a message in, commit included.",
            ("service", "type"),
            buckets=_HANDLING_BUCKETS,
            registry=registry,
        )
        self.message_age = Histogram(
            "dualwrite_message_age_seconds",
            "Time from the recording of a message to the commit of its effect; across clocks of two machines.",
            ("service", "type"),
            buckets=_AGE_BUCKETS,
            registry=registry,
        )
        self.pruned = Counter(
            "dualwrite_pruned_rows_total",
            "Rows of messages that were deleted because they were old enough.",
            ("service", "table"),
            registry=registry,
        )

    def _make_states(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"dualwrite_{name}", text, ("service", *labels), registry=registry)

        self.outbox_rows = gauge("outbox_rows", "Messages that wait for delivery.", "side")
        self.outbox_age = gauge(
            "outbox_age_seconds", "Age of the oldest message that waits for delivery.", "side"
        )
        self.undelivered = gauge(
            "outbox_undelivered_rows",
            "Messages that somebody has taken out of the outbox undelivered, and has to see to.",
            "side",
        )
        self.dead_letters = gauge(
            "dead_letters_open", "Messages that could not be taken in and wait for a decision."
        )
        self.broker = gauge("broker_state", "1 for the state that the message broker is in.", "state")

    def _make_saga_collectors(self, registry: CollectorRegistry) -> None:
        self.sagas = Gauge(
            "dualwrite_sagas_open",
            "Sagas that are not over.",
            ("service", "style", "state"),
            registry=registry,
        )
        self.saga_age = Gauge(
            "dualwrite_saga_age_seconds",
            "Age of the oldest saga in this state, which is not over.",
            ("service", "style", "state"),
            registry=registry,
        )
        self.saga_duration = Histogram(
            "dualwrite_saga_duration_seconds",
            "Time from the beginning of a saga to the state that it ended in.",
            ("service", "style", "state"),
            buckets=_SAGA_BUCKETS,
            registry=registry,
        )

    def delivery_finished(self, *, service: str, kind: str, outcome: DeliveryOutcome | str) -> None:
        """The broker has kept a message of type `kind`, or has not."""
        if self._labels.is_enabled(service):
            name, kind = self._labels.service(service), self._labels.message(service, kind)
            self.deliveries.labels(name, kind, closed(DeliveryOutcome, outcome)).inc()

    def taking_finished(
        self,
        *,
        service: str,
        kind: str,
        outcome: TakingOutcome | str,
        seconds: float | None = None,
        age_seconds: float | None = None,
    ) -> None:
        """One try to take in a message of type `kind` has ended; `age_seconds` where its effect is there now for the first time."""
        if not self._labels.is_enabled(service):
            return
        name, kind = self._labels.service(service), self._labels.message(service, kind)
        self.messages.labels(name, kind, closed(TakingOutcome, outcome)).inc()
        if seconds is not None:
            self.handling_duration.labels(name, kind).observe(not_negative(seconds))
        if age_seconds is not None:
            self.message_age.labels(name, kind).observe(not_negative(age_seconds))

    def outbox_measured(
        self, *, service: str, side: Side | str, rows_count: int, age_seconds: float, undelivered_count: int
    ) -> None:
        """The outbox of `side` was looked at: what waits, the age of the oldest (0 without any), what was taken out of it."""
        if self._labels.is_enabled(service):
            labels = self._labels.service(service), closed(Side, side)
            self.outbox_rows.labels(*labels).set(rows_count)
            self.outbox_age.labels(*labels).set(not_negative(age_seconds))
            self.undelivered.labels(*labels).set(undelivered_count)

    def outbox_let_go(self, *, service: str, side: Side | str) -> None:
        """Nothing is delivered from `side` any more: what was measured last would stand there for ever."""
        labels = self._labels.service(service), closed(Side, side)
        for gauge in (self.outbox_rows, self.outbox_age, self.undelivered):
            gauge.remove_by_labels({"service": labels[0], "side": labels[1]})

    def dead_letters_counted(self, *, service: str, open_count: int) -> None:
        """The messages were counted that could not be taken in."""
        if self._labels.is_enabled(service):
            self.dead_letters.labels(self._labels.service(service)).set(open_count)

    def broker_seen(self, *, service: str, state: BrokerState | str) -> None:
        """The broker has answered, or has not."""
        if self._labels.is_enabled(service):
            set_state(self.broker, (self._labels.service(service),), kind=BrokerState, value=state)

    def sagas_measured(
        self, *, service: str, style: str, state: str, open_count: int, age_seconds: float
    ) -> None:
        """Sagas of one style and state were counted; `age_seconds` is that of the oldest, 0 without any."""
        if self._labels.is_enabled(service):
            labels = self._labels.service(service), *self._labels.saga(service, style, state)
            self.sagas.labels(*labels).set(open_count)
            self.saga_age.labels(*labels).set(not_negative(age_seconds))

    def saga_finished(self, *, service: str, style: str, state: str, seconds: float) -> None:
        """A saga has ended in `state`, so long after it began."""
        if self._labels.is_enabled(service):
            labels = self._labels.service(service), *self._labels.saga(service, style, state)
            self.saga_duration.labels(*labels).observe(not_negative(seconds))

    def rows_pruned(self, *, service: str, table: PrunedTable | str, rows_count: int) -> None:
        """So many old rows are gone."""
        if self._labels.is_enabled(service):
            self.pruned.labels(self._labels.service(service), closed(PrunedTable, table)).inc(rows_count)
