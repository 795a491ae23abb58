"""A table of the database as a declaration."""

from __future__ import annotations

from dataclasses import dataclass

from rogue_hunter.schema.field import Field


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its columns in order, its constraints and its indexes."""

    name: str
    columns: tuple[Field, ...]
    doc: str
    rules: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    options: str = ""

    def create(self) -> list[str]:
        """The statements that make the table."""
        lines = [f"  {quoted(c.name)} {_definition(c)}" for c in self.columns] + [f"  {rule}" for rule in self.rules]
        return [f"CREATE TABLE {self.name} (\n" + ",\n".join(lines) + f"\n){self.options}", *self.indexes]

    def insert(self, *columns: str) -> str:
        """An INSERT with named parameters, of these columns or of all but id."""
        names = columns or tuple(c.name for c in self.columns if c.name != "id")
        return f"INSERT INTO {self.name} ({', '.join(map(quoted, names))}) VALUES ({', '.join(':' + n for n in names)})"


def quoted(name: str) -> str:
    """A column's name in a statement."""
    return f'"{name}"' if name in _KEYWORDS else name


_KEYWORDS = frozenset({"limit"})
"""Fields of records whose names are words of SQL."""


def _definition(column: Field) -> str:
    if column.name == "id":
        return "INTEGER PRIMARY KEY"
    return column.sql + (" NOT NULL" if column.required else "")


def column(name: str, kind: type, unit: str, doc: str, required: bool = False) -> Field:
    """A column that no record has."""
    return Field(name, kind, unit, doc, "store", required=required)
