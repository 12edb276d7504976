"""Puts a configuration together from what was given in several places. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from penstock.config.checks import told
from penstock.config.fields import Field, fields_of, paths_of, sections_of
from penstock.config.values import Unfit, read
from penstock.errors import ConfigError, ConfigProblem

T = TypeVar("T")

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Source:
    """Values that were given in one place."""

    values: Mapping[str, Any]
    """By path, as ``section.field``; whatever else was there by its own name."""
    spell: Callable[[str], str] = str
    """Makes of a path what it is called in this place."""
    place: str = ""
    """Goes before such a name, to tell where it is."""
    is_text: bool = False
    """Numbers are written as text here."""

    def origin(self, path: str) -> str:
        """Where the value of a path is."""
        return self.place + self.spell(path)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A configuration, and where each field of it was given."""

    config: T
    origins: Mapping[str, str]
    """By path; `DEFAULT` for what was not given."""


@dataclass(frozen=True, slots=True)
class _Given:
    value: Any
    shown: str
    origin: str


def flat(tables: Mapping[str, Any], sections: Iterable[str]) -> dict[str, Any]:
    """The values of nested tables, or of sections that are complete, by path."""
    values: dict[str, Any] = {}
    for name, table in tables.items():
        if name in sections and is_dataclass(table) and not isinstance(table, type):
            values.update({f"{name}.{field.name}": getattr(table, field.name) for field in fields(table)})
        elif name in sections and isinstance(table, Mapping):
            values.update({f"{name}.{key}": value for key, value in table.items()})
        else:
            values[f'"{name}"' if "." in name else name] = table  # a key with a dot in it is no path
    return values


def load(config: type[T], sources: Sequence[Source], problems: Iterable[ConfigProblem] = ()) -> Loaded[T]:
    """Build a configuration; of what several sources give, the first counts.

    Args:
        problems: what was wrong with the sources themselves.

    Raises:
        ConfigError: something is wrong with any of them, even with a value that does not count; it has all problems.
    """
    found = list(problems)
    given: dict[str, _Given] = {}
    known = paths_of(config)
    for source in sources:
        for path, value in source.values.items():
            origin = source.origin(path)
            if path not in known:
                found.append(_unknown(path, value, source, known))
                continue
            try:
                taken = _Given(read(value, known[path], is_text=source.is_text), told(value), origin)
            except Unfit as exc:
                found.append(ConfigProblem(path, told(value), exc.expected, origin))
            else:
                given.setdefault(path, taken)
    sections = {}
    for name, section in sections_of(config).items():
        wrong = {problem.path for problem in found}
        mine = {field: given[path] for field in fields_of(section) if (path := f"{name}.{field}") in given}
        sections[name] = _section(name, section, mine, found, wrong)
    if found:
        raise ConfigError(found)
    origins = {path: given[path].origin if path in given else DEFAULT for path in known}
    return Loaded(config(**sections), origins)


def _section(name: str, section: type, given: dict[str, _Given], problems: list[ConfigProblem], wrong: set[str]) -> Any:
    """Build a section, leaving out one field after the other that is out of bounds, so that all of them are told."""
    while True:
        try:
            return section(**{field: item.value for field, item in given.items()})
        except ValueError as exc:
            field, shown, what = _blamed(str(exc), given)
        item = given.pop(field, None)
        if not any(re.search(rf"\b{each}\b", what) for each in fields_of(section) if f"{name}.{each}" in wrong):
            path = f"{name}.{field}" if field else name
            problems.append(ConfigProblem(path, shown, what, DEFAULT if item is None else item.origin))
        if item is None:
            return None
        wrong.add(f"{name}.{field}")


def _blamed(message: str, given: Mapping[str, _Given]) -> tuple[str, str, str]:
    """The field that a message ``field=value: bound`` is about, the value and the bound."""
    field, _, rest = message.partition("=")
    if not field.isidentifier():
        return "", "", message
    if field in given:
        item = given[field]
        bound = rest.removeprefix(f"{item.value!r}: ").removeprefix(f"{told(item.value)}: ")
        return field, item.shown, bound
    value, _, what = rest.partition(": ")
    return field, value, what


def _unknown(path: str, value: Any, source: Source, known: dict[str, Field]) -> ConfigProblem:
    sections = {name.partition(".")[0]: name for name in reversed(known)}
    origin = source.origin(path)
    if path in sections:
        return ConfigProblem(path, "", f"is a section; set its fields, as {source.spell(sections[path])}", origin)
    if isinstance(value, Mapping) and "." not in path:
        what, names = "there is no such section", list(sections)
    else:
        what = "there is no such field"
        namesakes = [name for name in known if name.endswith("." + path.rpartition(".")[2])]
        names = namesakes or list(known)
    nearest = get_close_matches(path, names, 1) or (names if len(names) == 1 else [""])
    return ConfigProblem(path, "", what, origin, source.spell(nearest[0]) if nearest[0] else "")
