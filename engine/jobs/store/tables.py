r"""The tables, as migrations leave them. JSON lies in text columns: both databases then keep NaN and `\u0000`."""

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

__all__ = ["METADATA", "accounts", "artifacts", "deliveries", "events", "facts", "idempotency", "jobs", "ledger"]


class Json(TypeDecorator[Any]):
    """Any JSON value as ASCII text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any | None, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: Any | None, dialect: Dialect) -> Any:
        return None if value is None else json.loads(value)


Number = BigInteger().with_variant(Integer(), "sqlite")  # only INTEGER counts by itself there
Name = String(255)
METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

jobs = Table(
    "jobs",
    METADATA,
    Column("seq", Number, primary_key=True, autoincrement=True),
    Column("id", Name, nullable=False, unique=True),
    Column("owner", Name, nullable=False),
    Column("state", String(16), nullable=False),
    Column("number", Float(53), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, default=0),
    Column("deaths", Integer, nullable=False, default=0),
    Column("created_at", Float(53), nullable=False),
    Column("started_at", Float(53)),
    Column("ended_at", Float(53)),
    Column("expires_at", Float(53)),
    Column("keep_s", Float(53)),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("worker", Name, nullable=False, default=""),
    Column("source", Name, nullable=False, default=""),
    Column("cost", Number, nullable=False, default=0),
    Column("events", Integer, nullable=False, default=0),
    Column("retry_of", Name),
    Column("webhook", Json),
    Column("meta", Json, nullable=False),
    Column("failure", Json),
    Column("outcome", Json),
    Column("request", Json, nullable=False),
    Index(None, "state", "owner"),
    Index(None, "owner", "created_at"),
    Index(None, "ended_at"),
)

events = Table(
    "events",
    METADATA,
    Column("job_id", Name, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Float(53), nullable=False),
    Column("type", String(64), nullable=False),
    Column("body", Json, nullable=False),
    sqlite_with_rowid=False,
)

idempotency = Table(
    "idempotency",
    METADATA,
    Column("owner", Name, primary_key=True),
    Column("key", Name, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("job_id", Name, nullable=False),
    Column("at", Float(53), nullable=False, index=True),
)

artifacts = Table(
    "artifacts",
    METADATA,
    Column("seq", Number, primary_key=True, autoincrement=True),
    Column("job_id", Name, nullable=False, index=True),  # no foreign key: files outlive the record of their job
    Column("owner", Name, nullable=False),
    Column("at", Float(53), nullable=False, index=True),
    Column("node_id", Name, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("subfolder", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Index(None, "filename", "subfolder", "kind"),
)

accounts = Table(
    "accounts",
    METADATA,
    Column("id", Name, primary_key=True),
    Column("name", Name, nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("hint", String(16), nullable=False),
    Column("scopes", Json, nullable=False),
    Column("endpoints", Json),
    Column("credits", Number, nullable=False, default=0),
    Column("held", Number, nullable=False, default=0),
    Column("spent", Number, nullable=False, default=0),
    Column("spend_limit", Number),
    Column("requests_per_minute", Float(53)),
    Column("created_at", Float(53), nullable=False),
    Column("revoked_at", Float(53)),
)

ledger = Table(
    "ledger",
    METADATA,
    Column("seq", Number, primary_key=True, autoincrement=True),
    Column("account", Name, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("at", Float(53), nullable=False),
    Column("amount", Number, nullable=False),
    Column("reason", Name, nullable=False),
    Column("job_id", Name),
    UniqueConstraint("job_id"),  # one charge per job, whatever happens
)

deliveries = Table(
    "deliveries",
    METADATA,
    Column("id", Name, primary_key=True),
    Column("job_id", Name, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_at", Float(53), index=True),
    Column("delivered_at", Float(53)),
    Column("log", Json, nullable=False),
)

facts = Table("facts", METADATA, Column("name", Name, primary_key=True), Column("value", Json))
