"""Where a configuration is given: the environment, and a file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from penstock.config.loader import Source, flat
from penstock.errors import ConfigError, ConfigProblem

PREFIX = "PENSTOCK_"
FILE_VARIABLE = "PENSTOCK_CONFIG"
"""Names the file; no other variable that begins with the prefix is anything but a field."""
FILE = "penstock.toml"
PYPROJECT = "pyproject.toml"
_TABLE = "tool.penstock."


def variable(path: str) -> str:
    """The environment variable that sets a field."""
    return PREFIX + path.replace(".", "__").upper()


def from_environment(environ: Mapping[str, str]) -> Source:
    """The fields that environment variables set."""
    names: dict[str, str] = {}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name != FILE_VARIABLE:
            path = name.removeprefix(PREFIX).replace("__", ".", 1).lower()
            names[name if path in names else path] = name  # a second spelling of one is none
    values = {path: environ[name] for path, name in names.items()}
    return Source(values, lambda path: names.get(path, variable(path)), is_text=True)


def file_for(path: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: the one that is named, or one in the working directory, if it has a configuration.

    Raises:
        ConfigError: it cannot be told, for ``pyproject.toml`` is damaged.
    """
    named = path if path is not None else environ.get(FILE_VARIABLE)
    if named:
        return Path(named)
    if Path(FILE).exists():
        return Path(FILE)
    pyproject = Path(PYPROJECT)
    return pyproject if pyproject.exists() and _table(pyproject) is not None else None


def from_file(path: Path, sections: Collection[str]) -> Source:
    """The fields that a file sets: in its table ``tool.penstock``, if it is called ``pyproject.toml``.

    Raises:
        ConfigError: it cannot be read.
    """
    table = _table(path)
    prefix = _TABLE if path.name == PYPROJECT else ""
    return Source(flat(table or {}, sections), lambda name: prefix + name, f"{path}: ")


def _table(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as exc:
        raise _unreadable(path, f"cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise _unreadable(path, f"is not UTF-8, at byte {exc.start}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise _unreadable(path, f"is not TOML: {exc}") from exc
    except (ValueError, RecursionError) as exc:  # thousands of digits, or of brackets
        raise _unreadable(path, f"cannot be read: {exc}") from exc
    if path.name != PYPROJECT:
        return content
    tool = content.get("tool", {})
    table = tool.get("penstock") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise _unreadable(path, "has no table at tool.penstock, but something else")
    return table


def _unreadable(path: Path, what: str) -> ConfigError:
    return ConfigError([ConfigProblem("", "", what, str(path))])
