"""What ``import penstock`` offers, and what it does not load."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

import penstock

SOURCE = Path(penstock.__file__).parent
WITH_EXTRAS = {"Dashboard", "SharedTier"}
NO_EXTRAS = "import sys; sys.modules.update(dict.fromkeys(('starlette', 'uvicorn', 'redis', 'hiredis')))"


def modules_after(statement: str) -> set[str]:
    program = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = modules_after("import penstock")
    heads = {name.partition(".")[0] for name in loaded}
    assert "penstock" in heads
    assert not heads & {"websockets", "picows", "uvloop", "asyncio", "ssl", "logging", "click", "rich", "dataclasses"}
    assert {name for name in loaded if name.startswith("penstock.")} == {"penstock._version"}


def test_a_name_loads_what_it_needs_and_no_more() -> None:
    assert "penstock.connection.connect" not in modules_after("import penstock; penstock.BatchConfig")
    loaded = modules_after("import penstock; penstock.connect")
    assert "penstock.connection.connect" in loaded
    assert not any(name.startswith("penstock.serve") for name in loaded)
    assert "picows" not in loaded


@pytest.mark.parametrize("name", sorted(penstock._HOMES))
def test_a_public_name_is_what_its_module_has(name: str) -> None:
    value = getattr(penstock, name)
    assert value.__module__ == penstock._HOMES[name]
    assert value is getattr(import_module(value.__module__), name)
    assert value.__doc__


@pytest.mark.parametrize(
    "before", ["penstock.Server", "penstock.unix_serve", "penstock.serve", "import penstock.server.serve"]
)
def test_serve_is_a_function_whatever_was_loaded_before(before: str) -> None:
    assert modules_after(f"import penstock; {before}; assert penstock.serve.__module__ == 'penstock.server.serve'")


def test_a_name_is_looked_up_once() -> None:
    assert modules_after("import penstock; penstock.connect; assert 'connect' in vars(penstock)")


def test_all_public_names_are_listed() -> None:
    assert set(penstock.__all__) <= set(dir(penstock))
    assert dir(penstock) == sorted(dir(penstock))
    assert set(penstock.__all__) == {*penstock._HOMES, "__version__"} - WITH_EXTRAS
    assert penstock.__all__ == sorted(penstock.__all__)


def test_names_can_be_imported_with_a_star() -> None:
    names: dict[str, object] = {}
    exec("from penstock import *", names)
    assert set(penstock.__all__) <= set(names)


@pytest.mark.parametrize(
    "look",
    [
        "from penstock import *",
        "import inspect, penstock; inspect.getmembers(penstock)",
        "import pydoc, penstock; assert 'class connect' in pydoc.plain(pydoc.render_doc(penstock))",
        "from penstock import SharedStats",
    ],
    ids=["star", "getmembers", "help", "statistics of what needs an extra"],
)
def test_the_package_is_looked_at_without_extras(look: str) -> None:
    assert modules_after(f"{NO_EXTRAS}; {look}")


@pytest.mark.parametrize("name", sorted(WITH_EXTRAS))
def test_what_needs_an_extra_is_imported_by_name(name: str) -> None:
    names: dict[str, object] = {}
    exec(f"from penstock import {name}", names)
    assert names[name] is getattr(penstock, name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'penstock' has no attribute 'conect'"):
        penstock.conect  # noqa: B018 - looked at, not used
    with pytest.raises(ImportError, match="nothing_of_the_kind"):
        exec("from penstock import nothing_of_the_kind")
    assert not hasattr(penstock, "__wrapped__")


def test_type_checkers_see_every_public_name() -> None:
    checked = (SOURCE / "__init__.py").read_text().partition("if TYPE_CHECKING:")[2].partition("_HOMES")[0]
    for name, home in penstock._HOMES.items():
        assert name in checked
        assert f"from {home} import" in checked


def test_the_package_is_marked_as_typed() -> None:
    assert (SOURCE / "py.typed").is_file()


def test_the_version_is_the_distribution_s() -> None:
    assert penstock.__version__ == version("penstock")
