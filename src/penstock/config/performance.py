"""Everything that can be set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from penstock.batch.policy import BatchConfig
from penstock.config.fields import sections_of
from penstock.config.loader import Loaded, Source, flat, load
from penstock.config.sections import (
    AlertsConfig,
    CacheConfig,
    EnvelopeConfig,
    FallbackConfig,
    LimitsConfig,
    MetricsConfig,
    RpcConfig,
    SendingConfig,
)
from penstock.config.sources import file_for, from_environment, from_file
from penstock.errors import ConfigError, ConfigProblem
from penstock.pool.config import ConnectionPoolConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceConfig:
    """All that can be set about the middleware and its stages; `load` reads it from a file and the environment.

    Raises:
        ValueError: a section is not of its class; the message names it.
    """

    pool: ConnectionPoolConfig = field(default_factory=ConnectionPoolConfig)
    """How connections are shared."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    """How a connection gathers messages until it writes them."""
    sending: SendingConfig = field(default_factory=SendingConfig)
    """How messages gather that are sent through the middleware."""
    envelope: EnvelopeConfig = field(default_factory=EnvelopeConfig)
    """How connections speak with servers."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    """Which answers are kept."""
    rpc: RpcConfig = field(default_factory=RpcConfig)
    """How calls are made."""
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    """What is measured."""
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    """Who is told when something is wrong."""
    fallback: FallbackConfig = field(default_factory=FallbackConfig)
    """Which stages work, and when they are stepped around."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    """Bounds of everything together."""

    def __post_init__(self) -> None:
        for name, section in sections_of(type(self)).items():
            value = getattr(self, name)
            if not isinstance(value, section):
                raise ValueError(f"{name}={value!r}: must be a {section.__name__}")

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> Self:
        """Read the configuration; of what is given in several places, the first of these counts.

        ``overrides``, environment variables as ``PENSTOCK_POOL__MAX_CONNECTIONS``, the file, defaults. The file is
        ``path``, or the one that ``PENSTOCK_CONFIG`` names, or ``penstock.toml`` in the working directory, or the table
        ``tool.penstock`` of ``pyproject.toml`` there.

        Args:
            environ: instead of the environment of the process.
            overrides: for a section a mapping of its fields, or the section complete.

        Raises:
            ConfigError: something is wrong; it tells everything that is.
        """
        return cls.load_with_origins(path, environ, **overrides).config

    @classmethod
    def load_with_origins(
        cls,
        path: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> Loaded[Self]:
        """Like `load`, with the place where each field was given."""
        environ = os.environ if environ is None else environ
        sections = sections_of(cls)
        sources = [Source(flat(overrides, sections), place="argument "), from_environment(environ)]
        problems: tuple[ConfigProblem, ...] = ()
        try:
            if (file := file_for(path, environ)) is not None:
                sources.append(from_file(file, sections))
        except ConfigError as exc:
            problems = exc.problems
        return load(cls, sources, problems)
