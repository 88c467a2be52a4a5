"""What is installed is told apart by what it is: a process that knows another version sees that."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Integer, MetaData, Table

from backend.shared.journal.install import described


def of(*, first: tuple[str, ...], second: tuple[str, ...]) -> MetaData:
    metadata = MetaData()
    Table("first", metadata, *(Column(name, Integer) for name in first))
    Table("second", metadata, *(Column(name, Integer) for name in second))
    return metadata


def test_a_column_that_moves_to_another_table_is_another_installation() -> None:
    assert described(of(first=("id", "x"), second=("id",))) != described(
        of(first=("id",), second=("id", "x"))
    )


def test_the_order_in_which_constraints_and_indexes_are_made_says_nothing() -> None:
    def made(names: tuple[str, ...]) -> MetaData:
        metadata = MetaData()
        table = Table("first", metadata, Column("id", Integer), Column("x", Integer))
        for name in names:
            table.append_constraint(CheckConstraint(f"{name} > 0", name=f"{name}_is_positive"))
            Index(f"by_{name}", table.c[name])
        return metadata

    assert described(made(("id", "x"))) == described(made(("x", "id")))
