"""What needs an extra that is not installed says so, and what to do."""

from __future__ import annotations

import subprocess
import sys

import pytest

EXTRAS = [
    ("dashboard", "uvicorn", "from penstock import Dashboard"),
    ("dashboard", "starlette", "from penstock.dashboard.dashboard import Dashboard"),
    ("prometheus", "prometheus_client", "import penstock.metrics.prometheus"),
    ("otel", "opentelemetry", "import penstock.metrics.otel"),
    ("gql", "gql", "import penstock.contrib.gql"),
    ("web3", "web3", "import penstock.contrib.web3"),
    ("valkey", "redis", "import penstock.cache.shared.tier"),
]


@pytest.mark.parametrize(("extra", "package", "statement"), EXTRAS, ids=lambda one: one.rpartition(" ")[2])
def test_a_missing_extra_is_told_with_what_to_do(extra: str, package: str, statement: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; {statement}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    *_, last = done.stderr.splitlines()
    assert last.startswith("ImportError: ")
    assert last.endswith(f"needs the extra: pip install 'penstock[{extra}]'")
