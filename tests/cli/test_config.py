"""``penstock config``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import fastjsonschema
import pytest
from click.testing import CliRunner, Result

from penstock import PerformanceConfig, cli


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(cli.cli, ["config", *arguments], env=environ)


def test_what_is_shown_is_a_file_that_gives_the_same() -> None:
    result = config("show", PENSTOCK_POOL__MAX_CONNECTIONS="7", PENSTOCK_CACHE__MAX_BYTES="1MiB")
    assert result.exit_code == 0
    Path("again.toml").write_text(result.stdout)
    loaded = PerformanceConfig.load("again.toml", {})
    assert loaded == PerformanceConfig.load(environ={}, pool={"max_connections": 7}, cache={"max_bytes": 2**20})


def test_each_value_is_shown_with_its_origin() -> None:
    Path("penstock.toml").write_text("[cache]\nttl = '5m'\n")
    lines = config("show", "--origin", PENSTOCK_POOL__MAX_CONNECTIONS="7").stdout.splitlines()
    assert "max_connections = 7                       # PENSTOCK_POOL__MAX_CONNECTIONS" in lines
    assert "ttl = 300.0                               # penstock.toml: cache.ttl" in lines
    assert "max_size = 1000                           # default" in lines


def test_the_same_as_json() -> None:
    environ = {"PENSTOCK_POOL__MAX_CONNECTIONS": "7", "PENSTOCK_CACHE__TTL": "inf"}
    content = json.loads(config("show", "--json", "--origin", **environ).stdout)
    assert content["schema"] == 1
    assert content["config"]["pool"]["max_connections"] == 7
    assert content["config"]["cache"] | {"ttl": "inf", "eviction_policy": "lru"} == content["config"]["cache"]
    assert content["config"]["envelope"]["reliable"] is None
    assert content["origins"]["pool"]["max_connections"] == "PENSTOCK_POOL__MAX_CONNECTIONS"
    assert "origins" not in json.loads(config("show", "--json").stdout)


@pytest.mark.parametrize("options", [[], ["--json"], ["--origin"]])
def test_passwords_are_not_shown(options: list[str]) -> None:
    urls = {
        "PENSTOCK_CACHE__SHARED": 'redis://me:hunter2" hunter2@host/0',
        "PENSTOCK_ALERTS__WEBHOOK": "https://host/hook?token=hunter2",
    }
    result = config("show", *options, **urls)
    assert '"redis://host/0"' in result.stdout
    assert '"https://host/hook?token=***"' in result.stdout
    assert "hunter2" not in result.output


def test_what_looks_like_a_user_in_no_url_is_shown() -> None:
    assert 'prefix = "me@here:"' in config("show", PENSTOCK_CACHE__PREFIX="me@here:").stdout


def test_a_configuration_without_problems_ends_with_0() -> None:
    Path("some.toml").write_text("[cache]\nttl = '5m'\n")
    result = config("check", "some.toml")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("no problems; 1 of ")
    assert config("check").stdout.startswith("no problems; 0 of ")


@pytest.mark.parametrize("command", [["check", "some.toml"], ["check"], ["show"]])
def test_problems_are_listed_and_end_with_1(command: list[str]) -> None:
    for name in ("some.toml", "penstock.toml"):
        Path(name).write_text("[cache]\ntl = '5m'\nmax_size = -1\n")
    result = config(*command, PENSTOCK_RPC__TIMEOUT="soon")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 3
    for words in ("did you mean cache.ttl?", "cache.max_size=-1", "PENSTOCK_RPC__TIMEOUT"):
        assert words in result.stderr


def test_problems_are_listed_as_json() -> None:
    Path("some.toml").write_text("[cache]\ntl = '5m'\nmax_size = -1\nshared = 'redis://me:hunter2@host:x'\n")
    result = config("check", "some.toml", "--json")
    assert (result.exit_code, result.stderr) == (1, "")
    content = json.loads(result.stdout)
    assert content["schema"] == 1
    assert [problem["path"] for problem in content["problems"]] == ["cache.tl", "cache.max_size", "cache.shared"]
    assert content["problems"][0] == {
        "path": "cache.tl",
        "value": "",
        "what": "there is no such field",
        "origin": "some.toml: cache.tl",
        "nearest": "cache.ttl",
    }
    assert "hunter2" not in result.stdout


def test_no_problems_are_an_empty_list_as_json() -> None:
    result = config("check", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"schema": 1, "problems": []}


def test_the_exit_code_is_that_of_the_process() -> None:
    command = [sys.executable, "-m", "penstock", "config", "check", "nowhere.toml"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr == "nowhere.toml cannot be read: No such file or directory\n"


def test_the_schema_is_one() -> None:
    validate = fastjsonschema.compile(json.loads(config("schema").stdout))
    validate({"pool": {"max_connections": 3}})
    with pytest.raises(fastjsonschema.JsonSchemaException, match="max_connections"):
        validate({"pool": {"max_connections": "3"}})
