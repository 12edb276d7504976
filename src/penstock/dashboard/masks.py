"""What may be shown of URLs and of the configuration: no secrets. Pure."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

from penstock.config.fields import Field, fields_of, sections_of
from penstock.config.performance import PerformanceConfig
from penstock.config.values import plain

HIDDEN = "***"
_KEY = re.compile(r"(?=[^/]*\d)[\w-]{20,}", re.ASCII)
"""A part of a path that is rather a key than a name."""
_QUERY = re.compile(r"=[^&]*")


def shown_url(url: str) -> str:
    """A URL without user, password, values of its query, and keys in its path."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    place = parts.netloc.rpartition("@")[2]
    path = _KEY.sub(lambda found: found[0][:4] + "…", parts.path)
    query = _QUERY.sub("=" + HIDDEN, parts.query) if "=" in parts.query else HIDDEN
    return f"{parts.scheme}://{place}{path}" + (f"?{query}" if parts.query else "")


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
