"""The tables."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, DateTime, Double, Index, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.types import TypeDecorator

metadata = MetaData()


class Instant(TypeDecorator[datetime]):
    """A time in UTC. SQLite keeps none of the zone, so it is added again."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:  # noqa: ARG002
        """Return what to keep: SQLite would drop another zone unread."""
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:  # noqa: ARG002
        """Return what was kept, in UTC."""
        if value is None or value.tzinfo is None:
            return value and value.replace(tzinfo=UTC)
        return value.astimezone(UTC)


releases = Table(
    "releases",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("line", Text, nullable=False, comment="as it was written: its hash is that of these characters"),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("decision_id", Text, primary_key=True),
    Column("label", Integer, comment="0 or 1, by the definition of the bundle; null when nobody will ever know"),
    Column("at", Instant, nullable=False, index=True, comment="when it was reported"),
)


alerts = Table(
    "alerts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("since", Instant, nullable=False, index=True, comment="when it fired, or was resolved"),
    Column("alert", Text, nullable=False),
    Column("subject", Text, comment="a variant, the version of a bundle, or null: the whole graph"),
    Column("state", Text, nullable=False, comment="firing or resolved"),
    Column("value", Double),
    Column("limit", Double, nullable=False),
    Column("message", Text, nullable=False),
)


def _decided() -> list[Column[Any]]:
    """Return the columns of what a variant decided: a column belongs to one table."""
    return [
        Column("decision_id", Text, primary_key=True),
        Column("at", Instant, nullable=False, index=True, comment="when it was made"),
        Column("symbol", Text, nullable=False),
        Column("timestamp", Instant, comment="of the last bar, if the client said"),
        Column("status", Text, nullable=False),
        Column("reason", Text),
        Column("probability", Double),
        Column("action", Text, nullable=False),
        Column("variant", Text, nullable=False),
        Column("model_version", Text, nullable=False),
        Column("bundle_digest", Text, nullable=False),
        Column("epoch", Integer, nullable=False),
        Column("batch_size", Integer, nullable=False),
        Column("timings_ms", JSON, nullable=False),
        Column("window_crc", BigInteger, comment="CRC-32 of the scaled window, unless it abstained"),
    ]


def _by_epoch(table: str) -> Index:
    """What a guard looks up every two seconds: the latest of a variant in an epoch."""
    return Index(f"ix_{table}_epoch_variant_at", "epoch", "variant", "at")


shadows = Table(
    "shadows", metadata, *_decided(), _by_epoch("shadows"), comment="what the other variant would have decided"
)

decisions = Table(
    "decisions",
    metadata,
    *_decided(),
    Column("inputs", LargeBinary, nullable=False, comment="the validated row, see serve_app.journal.record"),
    _by_epoch("decisions"),
)
