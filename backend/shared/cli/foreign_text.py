"""What others have written, as tables show it."""

from __future__ import annotations

from rich.text import Text


def foreign(text: str) -> Text:
    """`text` as it is written: none of it is markup, and none a command to the terminal."""
    return Text("".join(_shown(character) for character in text))


def _shown(character: str) -> str:
    return character if character.isprintable() or character == "\n" else ascii(character)[1:-1]
