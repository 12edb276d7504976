"""Where a configuration comes from, what counts, and what is said when something is wrong."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import (
    BatchConfig,
    CacheConfig,
    ConfigError,
    ConfigProblem,
    ConnectionPoolConfig,
    EvictionPolicy,
    PerformanceConfig,
)
from penstock.config.fields import fields_of, paths_of, sections_of
from penstock.config.loader import Source, flat, load
from penstock.config.sources import from_environment, variable
from penstock.config.toml import to_toml
from support.configurations import configurations, texts

NOTHING: dict[str, str] = {}
NAMES = st.sampled_from(sorted({*paths_of(PerformanceConfig), *sections_of(PerformanceConfig), "pool.x", "x"})).flatmap(
    lambda path: st.sampled_from((path, path.rpartition(".")[2]))
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(("5s", "1KiB", "auto")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def problems(environ: dict[str, str] | None = None, path: str | None = None, **overrides: Any) -> list[ConfigProblem]:
    with pytest.raises(ConfigError) as caught:
        PerformanceConfig.load(path, NOTHING if environ is None else environ, **overrides)
    return list(caught.value.problems)


# Precedence


def test_what_is_not_given_has_its_default() -> None:
    loaded = PerformanceConfig.load_with_origins(environ=NOTHING)
    assert loaded.config == PerformanceConfig()
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == set(paths_of(PerformanceConfig))


def test_arguments_count_before_variables_and_these_before_the_file() -> None:
    Path("penstock.toml").write_text(
        "[pool]\nmax_connections = 1\nmin_connections = 1\nmax_total = 1\nmax_waiting = 1\n"
    )
    environ = dict.fromkeys(map(variable, ("pool.max_connections", "pool.min_connections", "pool.max_total")), "2")
    loaded = PerformanceConfig.load_with_origins(
        environ=environ, pool={"max_connections": 3, "max_total": 3}, batch={"batch_size": 3}
    )
    pool = loaded.config.pool
    assert (pool.max_connections, pool.max_total, pool.min_connections, pool.max_waiting) == (3, 3, 2, 1)
    assert pool.acquire_timeout == ConnectionPoolConfig().acquire_timeout
    assert loaded.origins["pool.max_connections"] == "argument pool.max_connections"
    assert loaded.origins["pool.min_connections"] == "PENSTOCK_POOL__MIN_CONNECTIONS"
    assert loaded.origins["pool.max_waiting"] == "penstock.toml: pool.max_waiting"
    assert loaded.origins["pool.acquire_timeout"] == "default"


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_BATCH__BATCH_SIZE", "7")
    assert PerformanceConfig.load().batch.batch_size == 7
    assert PerformanceConfig.load(environ=NOTHING).batch.batch_size == BatchConfig().batch_size


def test_a_section_can_be_given_complete() -> None:
    pool = ConnectionPoolConfig(max_connections=3, lease_warning=2)
    environ = {"PENSTOCK_POOL__MAX_WAITING": "5", "PENSTOCK_POOL__CHECK_INTERVAL": "5"}
    assert PerformanceConfig.load(environ=environ, pool=pool).pool == pool


def test_defaults_that_depend_on_a_field_follow_it() -> None:
    config = PerformanceConfig.load(environ={"PENSTOCK_POOL__MAX_CONNECTIONS": "300"})
    assert config.pool.max_total == 300


# Files


def test_the_file_is_the_path_or_the_one_that_a_variable_names_or_one_in_the_working_directory() -> None:
    for name, size in (("a.toml", 1), ("b.toml", 2), ("penstock.toml", 3)):
        Path(name).write_text(f"[batch]\nbatch_size = {size}\n")
    Path("pyproject.toml").write_text("[tool.penstock.batch]\nbatch_size = 4\n")
    environ = {"PENSTOCK_CONFIG": "b.toml"}
    assert PerformanceConfig.load("a.toml", environ).batch.batch_size == 1
    assert PerformanceConfig.load(Path("a.toml"), environ).batch.batch_size == 1
    assert PerformanceConfig.load(environ=environ).batch.batch_size == 2
    assert PerformanceConfig.load(environ={"PENSTOCK_CONFIG": ""}).batch.batch_size == 3
    Path("penstock.toml").unlink()
    loaded = PerformanceConfig.load_with_origins(environ=NOTHING)
    assert loaded.config.batch.batch_size == 4
    assert loaded.origins["batch.batch_size"] == "pyproject.toml: tool.penstock.batch.batch_size"


@pytest.mark.parametrize("content", ["", "[project]\nname = 'x'\n", "[tool.other]\nx = 1\n", "tool = 3\n"])
def test_a_pyproject_without_our_table_says_nothing(content: str) -> None:
    Path("pyproject.toml").write_text(content)
    assert PerformanceConfig.load(environ=NOTHING) == PerformanceConfig()
    assert PerformanceConfig.load("pyproject.toml", NOTHING) == PerformanceConfig()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[pool\n", "x.toml"),
        (b"[pool\n", "is not TOML: Expected ']' at the end of a table declaration (at line 1, column 6)"),
        (b"# \xff", "is not UTF-8, at byte 2"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_together_with_other_problems(content: bytes, says: str) -> None:
    Path("x.toml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        PerformanceConfig.load("x.toml", {"PENSTOCK_RPC__TIMEOUT": "soon"})
    assert says in str(caught.value)
    assert "PENSTOCK_RPC__TIMEOUT" in str(caught.value)
    assert len(caught.value.problems) == 2


def test_a_file_that_is_not_there_is_an_error_if_it_was_named() -> None:
    for problem in (*problems(path="x.toml"), *problems({"PENSTOCK_CONFIG": "x.toml"})):
        assert str(problem) == "x.toml cannot be read: No such file or directory"


def test_a_damaged_pyproject_in_the_working_directory_is_an_error() -> None:
    Path("pyproject.toml").write_text("[tool.penstock")
    assert "is not TOML" in str(*problems())
    Path("pyproject.toml").write_text("[tool]\npenstock = 3\n")
    assert str(*problems()) == "pyproject.toml has no table at tool.penstock, but something else"


# What is wrong


def test_all_problems_are_told_together_with_their_bounds_and_places() -> None:
    Path("penstock.toml").write_text(
        """
        [pool]
        max_connections = 0
        acquire_timeout = -1
        [metrics]
        interval = "soon"
        """
    )
    environ = {"PENSTOCK_POOL__MAX_WAITING": "-1", "PENSTOCK_CACHE__ENABLED": "perhaps"}
    with pytest.raises(ConfigError) as caught:
        PerformanceConfig.load(environ=environ, envelope={"on_session_lost": "cry"})
    assert str(caught.value) == "\n  ".join(
        (
            "6 problems:",
            "envelope.on_session_lost='cry': must be 'raise' or 'resend' (argument envelope.on_session_lost)",
            "cache.enabled='perhaps': must be true or false (PENSTOCK_CACHE__ENABLED)",
            "metrics.interval='soon': must be seconds, as 0.5 or '500ms' (penstock.toml: metrics.interval)",
            "pool.max_connections=0: must be a whole number of at least 1 (penstock.toml: pool.max_connections)",
            "pool.max_waiting='-1': must be a whole number of at least 0 (PENSTOCK_POOL__MAX_WAITING)",
            "pool.acquire_timeout=-1: must be a number of seconds, more than 0 (penstock.toml: pool.acquire_timeout)",
        )
    )


def test_a_value_that_does_not_count_is_a_problem_all_the_same() -> None:
    Path("penstock.toml").write_text("[pool]\nmax_connections = 'many'\n")
    assert [each.path for each in problems(pool={"max_connections": 3})] == ["pool.max_connections"]


def test_a_bound_of_one_field_by_another_is_told_if_that_one_is_right() -> None:
    assert [str(each) for each in problems(pool={"max_connections": 3, "min_connections": 5})] == [
        "pool.min_connections=5: must be at most max_connections=3 (argument pool.min_connections)"
    ]
    assert [each.path for each in problems(pool={"max_connections": "x", "min_connections": 50})] == [
        "pool.max_connections"
    ]
    assert [str(each) for each in problems(metrics={"interval": 1000})] == [
        "metrics.history=900.0: must be at least interval=1000.0 (default)"
    ]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PENSTOCK_POOL__MAX_CONECTIONS", "PENSTOCK_POOL__MAX_CONNECTIONS"),
        ("PENSTOCK_POOL_MAX_CONNECTIONS", "PENSTOCK_POOL__MAX_CONNECTIONS"),
        ("PENSTOCK_MAX_CONNECTIONS", "PENSTOCK_POOL__MAX_CONNECTIONS"),
        ("PENSTOCK_POOL__BATCH_BYTES", "PENSTOCK_BATCH__BATCH_BYTES"),
        ("PENSTOCK_CONFIG_FILE", ""),
    ],
)
def test_an_unknown_variable_is_a_problem_that_names_the_nearest(name: str, nearest: str) -> None:
    (problem,) = problems({name: "a secret"})
    assert (problem.origin, problem.nearest) == (name, nearest)
    assert "there is no such field" in str(problem)
    assert "secret" not in str(problem)


def test_other_variables_are_of_no_concern() -> None:
    environ = {"PENSTOCK": "1", "penstock_pool__max_connections": "5", "_PENSTOCK_COMPLETE": "x", "PATH": "/bin"}
    assert PerformanceConfig.load(environ=environ) == PerformanceConfig()


def test_unknown_names_in_a_file_are_problems_that_name_the_nearest() -> None:
    Path("penstock.toml").write_text("pool = 3\nnothing = 1\nidle_time = 5\n[pol]\nx = 1\n[cache]\nmaxsize = 1\n")
    assert list(map(str, problems())) == [
        "pool: is a section; set its fields, as pool.max_connections (penstock.toml: pool)",
        "nothing: there is no such field (penstock.toml: nothing)",
        "idle_time: there is no such field; did you mean sending.idle_time? (penstock.toml: idle_time)",
        "pol: there is no such section; did you mean pool? (penstock.toml: pol)",
        "cache.maxsize: there is no such field; did you mean cache.max_size? (penstock.toml: cache.maxsize)",
    ]


@pytest.mark.parametrize("text", ["x = " + "1" * 5000, "x = " + "[" * 100_000])
def test_a_file_that_python_cannot_read_is_a_problem(text: str) -> None:
    Path("penstock.toml").write_text(text)
    (problem,) = problems()
    assert problem.what.startswith("cannot be read")
    assert problem.origin == "penstock.toml"


def test_a_variable_that_is_there_in_two_spellings_is_a_problem() -> None:
    environ = {"PENSTOCK_POOL__MAX_CONNECTIONS": "3", "PENSTOCK_pool__max_connections": "4"}
    with pytest.raises(ConfigError) as caught:
        PerformanceConfig.load(environ=environ)
    (problem,) = caught.value.problems
    assert problem.origin == "PENSTOCK_pool__max_connections"
    assert "there is no such field" in problem.what


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://me:hunter2@host/", "pass who you are in headers"),
        ("http://host:port/", "must be a URL"),
        ("http://host/a b", "spaces"),
    ],
)
def test_a_url_that_alerts_cannot_be_posted_to_is_a_problem_and_no_surprise_later(url: str, says: str) -> None:
    for field in ("webhook", "alertmanager"):
        (problem,) = problems(alerts={field: url})
        assert problem.path == f"alerts.{field}"
        assert says in problem.what
        assert "hunter2" not in repr(problem)


def test_passwords_in_urls_are_not_told() -> None:
    for shared in ("http://me:hunter2@host/0", "redis://me:hunter2@"):
        (problem,) = problems(cache={"shared": shared})
        assert "hunter2" not in repr(problem)
        assert "must be a URL that begins with redis:// or rediss:// or unix://" in problem.what
    for value in (
        "redis://me:hunter2@host",
        "me:hunter2@host",
        "redis://me:hunter2/@host",
        ["redis://me:hunter2@host"],
    ):
        (problem,) = problems(cache={"ttl": value})
        assert "hunter2" not in repr(problem)
    for value in ("redis://me:hunter2/@host", "me:hunter2@host", {"url": "redis://me:hunter2@host"}):
        (problem,) = problems(cache={"shared": value})
        assert "hunter2" not in repr(problem)
    assert "hunter2" not in repr(CacheConfig(shared="redis://me:hunter2@host"))


@dataclass(frozen=True, kw_only=True)
class _Range:
    first: int = 0
    last: int = 0

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise ValueError("it ends before it begins")


@dataclass(frozen=True, kw_only=True)
class _Ranges:
    near: _Range
    far: _Range


def test_a_section_may_say_what_is_wrong_without_naming_a_field() -> None:
    with pytest.raises(ConfigError) as caught:
        load(_Ranges, [Source({"near.first": 1, "far.last": 1})])
    assert caught.value.problems == (ConfigProblem("near", "", "it ends before it begins", "default"),)
    assert load(_Ranges, [Source({"far.last": 1})]).config == _Ranges(near=_Range(), far=_Range(last=1))


# Values


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("pool.max_connections", "1_000", 1000),
        ("batch.batch_bytes", "64KiB", 65_536),
        ("batch.batch_bytes", "64 kb", 64_000),
        ("batch.batch_bytes", "1.5MiB", 1_572_864),
        ("limits.memory_bytes", "2GiB", 2 * 1024**3),
        ("limits.memory_bytes", "none", None),
        ("limits.memory_bytes", "12b", 12),
        ("pool.acquire_timeout", "5s", 5.0),
        ("pool.acquire_timeout", "100ms", 0.1),
        ("pool.acquire_timeout", "2m", 120.0),
        ("pool.acquire_timeout", "1.5h", 5400.0),
        ("pool.acquire_timeout", "1d", 86_400.0),
        ("pool.acquire_timeout", "1e2", 100.0),
        ("pool.acquire_timeout", "inf", float("inf")),
        ("pool.lease_warning", "None", None),
        ("cache.enabled", "Off", False),
        ("cache.enabled", "1", True),
        ("envelope.reliable", "yes", True),
        ("envelope.reliable", "none", None),
        ("cache.eviction_policy", "S3-FIFO", EvictionPolicy.S3_FIFO),
        ("cache.prefix", "none", "none"),
        ("cache.shared", "none", None),
        ("sending.deduplicate", "content", "content"),
        ("sending.deduplicate", "500ms", 0.5),
        ("fallback.pool", "bypassed", "bypassed"),
    ],
)
def test_text_of_a_variable_becomes_what_the_field_is(path: str, text: str, value: object) -> None:
    section, _, field = path.partition(".")
    found = getattr(getattr(PerformanceConfig.load(environ={variable(path): text}), section), field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("pool.max_connections", "5"),
        ("pool.max_connections", 5.0),
        ("pool.max_connections", True),
        ("pool.max_connections", "5s"),
        ("pool.max_connections", "5KiB"),
        ("pool.max_connections", None),
        ("pool.acquire_timeout", "5"),
        ("pool.acquire_timeout", "5KiB"),
        ("pool.acquire_timeout", "5S"),
        ("pool.acquire_timeout", True),
        ("pool.acquire_timeout", 10**400),
        ("pool.acquire_timeout", float("nan")),
        ("pool.connect_rate", "5s"),
        ("cache.jitter", "1s"),
        ("cache.max_bytes", "1.5B"),
        ("cache.max_bytes", "64"),
        ("cache.enabled", "yes"),
        ("cache.enabled", 1),
        ("cache.eviction_policy", "fifo"),
        ("cache.eviction_policy", [1]),
        ("cache.prefix", 3),
        ("cache.prefix", ""),
        ("sending.deduplicate", "contents"),
        ("sending.deduplicate", False),
        ("sending.deduplicate", 0),
        ("sending.overflow", "none"),
        ("pool.on_dirty", {}),
        ("alerts.webhook", "http://["),
        ("alerts.webhook", "http://"),
    ],
)
def test_a_value_of_another_type_is_refused_in_a_file_and_as_an_argument(path: str, value: object) -> None:
    section, _, field = path.partition(".")
    assert [each.path for each in problems(**{section: {field: value}})] == [path]


@given(configurations())
def test_a_configuration_written_to_a_file_and_read_is_the_same(config: PerformanceConfig) -> None:
    tables = tomllib.loads(to_toml(config))
    loaded = load(PerformanceConfig, [Source(flat(tables, sections_of(PerformanceConfig)))])
    assert loaded.config == config
    assert "default" not in loaded.origins.values()


@given(configurations(), st.data())
def test_a_configuration_written_to_variables_and_read_is_the_same(
    config: PerformanceConfig, data: st.DataObject
) -> None:
    environ = {
        variable(f"{name}.{field.name}"): data.draw(texts(getattr(getattr(config, name), field.name), field))
        for name, section in sections_of(PerformanceConfig).items()
        for field in fields_of(section).values()
    }
    assert load(PerformanceConfig, [from_environment(environ)]).config == config


@given(configurations())
def test_a_configuration_given_as_arguments_is_the_same(config: PerformanceConfig) -> None:
    sections = {name: getattr(config, name) for name in sections_of(PerformanceConfig)}
    assert PerformanceConfig.load(environ=NOTHING, **sections) == config == PerformanceConfig(**sections)


@given(
    st.dictionaries(NAMES, ANYTHING | st.dictionaries(NAMES, ANYTHING)),
    st.dictionaries(NAMES.map(variable), st.text()),
)
def test_whatever_is_given_is_taken_or_told(tables: dict[str, Any], environ: dict[str, str]) -> None:
    unknown = {f'"{name}"' if "." in name else name for name in tables} - set(sections_of(PerformanceConfig))
    try:
        loaded = PerformanceConfig.load(environ=environ, **tables)
    except ConfigError as error:
        told = error.problems
    else:
        assert isinstance(loaded, PerformanceConfig)
        told = ()
    assert unknown <= {problem.path for problem in told}
    assert len(told) == len(set(told))


def test_a_configuration_can_be_changed_in_part() -> None:
    config = PerformanceConfig()
    assert replace(config, cache=replace(config.cache, enabled=False)).cache.enabled is False
