"""One table of a configuration file, taken key by key: what is of another type, or left over, is a mistake.

Threads: one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from idemfs.errors import ConfigError

Value = TypeVar("Value")
Missing = TypeVar("Missing")


class Fields:
    """The keys of one table. ``label`` names it in messages."""

    def __init__(self, file: str, label: str, values: Mapping[str, object]) -> None:
        self.file = file
        self.label = label
        self._values = values
        self._taken: set[str] = set()

    def wrong(self, key: str, what: str) -> ConfigError:
        return ConfigError(f"{self.file}: {self.label}: key {key}: {what}")

    def parsed(self, key: str, parse: Callable[[str], Value], missing: Missing) -> Value | Missing:
        """What ``parse`` makes of the text under ``key``; it raises ``ValueError``."""
        value = self._take(key)
        if value is None:
            return missing
        return self._parsed(key, parse, value)

    def each(self, key: str, parse: Callable[[str], Value]) -> tuple[Value, ...]:
        """The same for a list of texts."""
        values = self._take(key)
        if values is None:
            return ()
        if not isinstance(values, list):
            raise self.wrong(key, f"is a list of texts, not {_type(values)}")
        return tuple(self._parsed(key, parse, value) for value in values)

    def choice(self, key: str, known: Sequence[str]) -> str:
        """One of these texts; the first if the key is missing."""

        def parse(text: str) -> str:
            if text not in known:
                raise ValueError(f"{text[:40]!r} is none of: {', '.join(known)}")
            return text

        return self.parsed(key, parse, known[0])

    def flag(self, key: str) -> bool:
        value = self._take(key)
        if not isinstance(value, bool | None):
            raise self.wrong(key, f"is true or false, not {_type(value)}")
        return bool(value)

    def table(self, key: str, label: str) -> Fields | None:
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(key, f"is a table: write {label} on a line of its own")
        return Fields(self.file, label, value)

    def tables(self, key: str, label: str) -> list[Fields]:
        values = self._take(key)
        if values is None:
            return []
        if not isinstance(values, list) or not all(isinstance(each, dict) for each in values):
            raise self.wrong(key, f"is a list of tables: write {label.partition(' ')[0]} before each")
        return [Fields(self.file, f"{label}, number {count}", each) for count, each in enumerate(values, 1)]

    def refuse_without(self, key: str, other: str) -> None:
        """Raises ``ConfigError`` if ``key`` is there; it says nothing without ``other``."""
        if key in self._values:
            raise self.wrong(key, f"means nothing without {other}")

    def end(self) -> None:
        """Raises ``ConfigError`` for a key that nobody asked for."""
        for key in self._values:
            if key not in self._taken:
                raise self.wrong(key, f"is unknown here; known: {', '.join(sorted(self._taken))}")

    def _take(self, key: str) -> object | None:
        self._taken.add(key)
        return self._values.get(key)

    def _parsed(self, key: str, parse: Callable[[str], Value], value: object) -> Value:
        if not isinstance(value, str):
            raise self.wrong(key, f"is a text, not {_type(value)}")
        try:
            return parse(value)
        except ValueError as wrong:
            raise self.wrong(key, str(wrong)) from None


def _type(value: object) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "a table"}
    return next((text for kind, text in kinds.items() if type(value) is kind), "a date or time")
