"""What may be shown of the configuration: no secrets. Pure."""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

from penstock.config.fields import Field, fields_of, sections_of
from penstock.config.performance import PerformanceConfig
from penstock.config.values import plain
from penstock.errors.urls import HIDDEN, shown_url


def shown_config(config: PerformanceConfig) -> list[dict[str, Any]]:
    """All sections with their fields; of URLs that may hold a secret, the place alone."""
    shown = []
    for name, section in sections_of(PerformanceConfig).items():
        values, known = getattr(config, name), fields_of(section)
        secret = {field.name for field in fields(values) if not field.repr}
        rows = [_row(known[field.name], getattr(values, field.name), field.name in secret) for field in fields(values)]
        shown.append({"name": name, "fields": rows})
    return shown


def _row(field: Field, value: Any, is_secret: bool) -> dict[str, Any]:
    text = plain(value)
    if isinstance(text, str) and value is not None:
        text = _place(text) if is_secret else shown_url(text) if "://" in text else text
    return {"name": field.name, "value": text, "unit": field.unit, "default": bool(value == field.default)}


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/{HIDDEN}"
