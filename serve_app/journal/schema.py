"""The tables."""

from sqlalchemy import Column, Integer, MetaData, Table, Text

metadata = MetaData()

releases = Table(
    "releases",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("line", Text, nullable=False, comment="as it was written: its hash is that of these characters"),
)
