"""What writers do in generated schedules: by units of work, and as other programs do it, by plain SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from backend.shared import Side, UnitOfWork
from tests.support.people import notes, people, profiles


class Change(Protocol):
    """Part of a unit of work; answers whether it has written `token`, which nobody else writes."""

    async def __call__(self, work: UnitOfWork, token: str) -> bool: ...


@dataclass(frozen=True)
class PutPerson:
    """Insert a person, or change one. Mail is one of few, so that it changes hands."""

    key: int
    mail: int | None = None
    city: bool = False

    async def __call__(self, work: UnitOfWork, token: str) -> bool:
        values: dict[Any, Any] = {people.c.name: token}
        if self.city:
            values[profiles.c.city] = token
        if self.mail is not None:
            values[people.c.email] = f"mail{self.mail}"
        if await work.get("person", (self.key,)):
            return await work.update("person", (self.key,), values)
        await work.insert("person", {people.c.id: self.key, people.c.email: f"own{self.key}"} | values)
        return True


@dataclass(frozen=True)
class DropPerson:
    """Delete a person, with the notes that there are."""

    key: int

    async def __call__(self, work: UnitOfWork, token: str) -> bool:
        await work.delete("person", (self.key,))
        return False


@dataclass(frozen=True)
class PutNote:
    """Insert a note, or change one, which may so get another person."""

    key: int
    person: int

    async def __call__(self, work: UnitOfWork, token: str) -> bool:
        values = {notes.c.person_id: self.person, notes.c.body: token}
        if await work.get("note", (self.key,)):
            return await work.update("note", (self.key,), values)
        await work.insert("note", {notes.c.id: self.key} | values)
        return True


@dataclass(frozen=True)
class DropNote:
    """Delete a note."""

    key: int

    async def __call__(self, work: UnitOfWork, token: str) -> bool:
        await work.delete("note", (self.key,))
        return False


@dataclass(frozen=True)
class SwapMails:
    """Two people exchange their e-mails."""

    one: int
    other: int

    async def __call__(self, work: UnitOfWork, token: str) -> bool:
        first, second = [await work.get("person", (key,), for_update=True) for key in (self.one, self.other)]
        if first is None or second is None or self.one == self.other:
            return False
        await work.update("person", (self.one,), {people.c.email: "between"})
        await work.update("person", (self.other,), {people.c.email: first["email"], people.c.name: token})
        await work.update("person", (self.one,), {people.c.email: second["email"]})
        return True


@dataclass(frozen=True)
class Rekey:
    """A person gets another key, which may have been somebody's before, and keeps the e-mail."""

    old: int
    new: int

    async def __call__(self, work: UnitOfWork, token: str) -> bool:
        row = await work.get("person", (self.old,), for_update=True)
        if row is None or await work.get("person", (self.new,)):
            return False
        await work.delete("person", (self.old,))
        await work.insert(
            "person", {people.c.id: self.new, people.c.email: row["email"], people.c.name: token}
        )
        return True


# {a} and {b} are keys, {token} is a value that nobody else writes. What "spoil" makes of a row the other side refuses, and
# what "spoil_type" makes of it cannot even be read in the types of the other side.
FOREIGN: dict[Side, dict[str, str]] = {
    Side.LEGACY: {
        "rename": "UPDATE folk SET nm = '{token}' WHERE folk_no IN ({a}, {b})",
        "pay_all": "UPDATE folk SET cents = cents + 1 WHERE cents >= 0",
        "insert": (
            "INSERT INTO folk (folk_no, mail, nm, born) VALUES ({a}, 'own{a}', '{token}', '2001-02-03') "
            "ON CONFLICT (folk_no) DO UPDATE SET nm = excluded.nm"
        ),
        "delete": "DELETE FROM folk WHERE folk_no = {a}",
        "delete_and_insert": (
            "DELETE FROM folk WHERE folk_no = {a}; "
            "INSERT INTO folk (folk_no, mail, nm) VALUES ({a}, 'mail{b}', '{token}')"
        ),
        "move": (
            "INSERT INTO folk_extra VALUES ({a}, '{token}') ON CONFLICT (folk_no) DO UPDATE SET city = excluded.city"
        ),
        "lose_city": "DELETE FROM folk_extra WHERE folk_no = {a}",
        "note": (
            "INSERT INTO notes (note_no, folk_no, body) VALUES ({b}, {a}, '{token}') "
            "ON CONFLICT (note_no) DO UPDATE SET folk_no = excluded.folk_no, body = excluded.body"
        ),
        "rekey": (
            "DELETE FROM folk_extra WHERE folk_no = {a}; DELETE FROM notes WHERE folk_no = {a}; "
            "UPDATE folk SET folk_no = {b} WHERE folk_no = {a}"
        ),
        "swap": (
            "CREATE TEMP TABLE both_mails ON COMMIT DROP AS SELECT folk_no, mail FROM folk WHERE folk_no IN ({a}, {b}); "
            "UPDATE folk SET mail = 'aside' || folk_no WHERE folk_no IN ({a}, {b}); "
            "UPDATE folk SET mail = coalesce((SELECT m.mail FROM both_mails AS m WHERE m.folk_no <> folk.folk_no), "
            "'own' || folk_no) WHERE folk_no IN ({a}, {b})"
        ),
        "rekey_note": "UPDATE notes SET note_no = {b} WHERE note_no = {a}",
        "spoil": "UPDATE folk SET cents = -5 WHERE folk_no = {a}",
        "spoil_type": "UPDATE folk SET born = 'never' WHERE folk_no = {a}",
        "truncate": "TRUNCATE folk CASCADE",
        "truncate_notes": "TRUNCATE notes",
    },
    Side.NEW: {
        "rename": "UPDATE people SET name = '{token}' WHERE id IN ({a}, {b})",
        "pay_all": "UPDATE people SET credit = credit + 0.01",
        "insert": (
            "INSERT INTO people (id, email, name, born) VALUES ({a}, 'own{a}', '{token}', '2001-02-03') "
            "ON CONFLICT (id) DO UPDATE SET name = excluded.name"
        ),
        "delete": "DELETE FROM people WHERE id = {a}",
        "delete_and_insert": (
            "DELETE FROM people WHERE id = {a}; "
            "INSERT INTO people (id, email, name) VALUES ({a}, 'mail{b}', '{token}')"
        ),
        "move": (
            "INSERT INTO profiles VALUES ({a}, '{token}') ON CONFLICT (person_id) DO UPDATE SET city = excluded.city"
        ),
        "lose_city": "DELETE FROM profiles WHERE person_id = {a}",
        "note": (
            "INSERT INTO notes (id, person_id, body) VALUES ({b}, {a}, '{token}') "
            "ON CONFLICT (id) DO UPDATE SET person_id = excluded.person_id, body = excluded.body"
        ),
        "rekey": (
            "DELETE FROM profiles WHERE person_id = {a}; DELETE FROM notes WHERE person_id = {a}; "
            "UPDATE people SET id = {b} WHERE id = {a}"
        ),
        "swap": (
            "CREATE TEMP TABLE both_mails ON COMMIT DROP AS SELECT id, email FROM people WHERE id IN ({a}, {b}); "
            "UPDATE people SET email = 'aside' || id WHERE id IN ({a}, {b}); "
            "UPDATE people SET email = coalesce((SELECT m.email FROM both_mails AS m WHERE m.id <> people.id), "
            "'own' || id) WHERE id IN ({a}, {b})"
        ),
        "rekey_note": "UPDATE notes SET id = {b} WHERE id = {a}",
        "spoil": "UPDATE people SET name = repeat('too long ', 20) || '{token}' WHERE id = {a}",
        "spoil_type": "UPDATE people SET credit = 9999999999 WHERE id = {a}",
        "truncate": "TRUNCATE people CASCADE",
        "truncate_notes": "TRUNCATE notes",
    },
}
MEND = {
    Side.LEGACY: (
        "UPDATE folk SET cents = greatest(cents, 0), born = nullif(born, 'never') WHERE cents < 0 OR born = 'never'"
    ),
    Side.NEW: (
        "UPDATE people SET name = left(name, 50), credit = least(credit, 1000) WHERE length(name) > 100 OR credit > 1000"
    ),
}
CORRUPT: dict[Side, dict[str, str]] = {
    side: {name: FOREIGN[side][name] for name in ("rename", "delete", "move", "lose_city", "note", "insert")}
    | {"steal": steal, "stranger": stranger}
    for side, steal, stranger in (
        (
            Side.LEGACY,
            "UPDATE folk SET mail = 'mail{b}' WHERE folk_no = {a}",
            "INSERT INTO folk (folk_no, mail, nm) VALUES (9{a}, 'mail{b}', '{token}') ON CONFLICT DO NOTHING",
        ),
        (
            Side.NEW,
            "UPDATE people SET email = 'mail{b}' WHERE id = {a}",
            "INSERT INTO people (id, email, name) VALUES (9{a}, 'mail{b}', '{token}') ON CONFLICT DO NOTHING",
        ),
    )
}
"""What befalls the secondary behind the engine's back."""
HISTORY = {
    Side.LEGACY: (
        "INSERT INTO folk (folk_no, mail, nm, cents) SELECT n, 'own' || n, 'history', n FROM generate_series(1, {rows}) AS n; "
        "INSERT INTO folk_extra SELECT n, 'Ulm' FROM generate_series(1, {rows}, 2) AS n; "
        "INSERT INTO notes (note_no, folk_no, body) SELECT n, n, 'history' FROM generate_series(1, {rows}) AS n"
    ),
    Side.NEW: (
        "INSERT INTO people (id, email, name, credit) SELECT n, 'own' || n, 'history', n FROM generate_series(1, {rows}) AS n; "
        "INSERT INTO profiles SELECT n, 'Ulm' FROM generate_series(1, {rows}, 2) AS n; "
        "INSERT INTO notes (id, person_id, body) SELECT n, n, 'history' FROM generate_series(1, {rows}) AS n"
    ),
}
