"""What may be shown of URLs, wherever that is: in errors, logs and pages. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

HIDDEN = "***"
_KEY = re.compile(r"(?=[^/]*\d)[\w-]{20,}", re.ASCII)
"""A part of a path that is rather a key than a name."""
_TELLING = re.compile(r"[@?#]")
"""What parts of a URL are after that may be secret, or before."""
_VALUE = re.compile(r"=[^&]*")
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>]*", re.ASCII | re.IGNORECASE)


def shown_url(url: str) -> str:
    """A URL without user, password, values of its query, keys in its path, and fragment.

    A place without a scheme, such as ``host:6379``, stays as it is. So does what is no URL, if nothing in it can be a
    secret; if something can it is `HIDDEN`.
    """
    if "://" not in url:
        return url.rpartition("@")[2]
    try:
        parts = urlsplit(url)
        _ = parts.port  # a slash in a password makes one of it that is no number
    except ValueError:
        return HIDDEN if _TELLING.search(url) else _without_keys(url)
    place = parts.netloc.rpartition("@")[2]
    path = _without_keys(parts.path)
    query = _VALUE.sub("=" + HIDDEN, parts.query) if "=" in parts.query else HIDDEN
    return f"{parts.scheme}://{place}{path}" + (f"?{query}" if parts.query else "")


def _without_keys(path: str) -> str:
    return _KEY.sub(lambda found: found[0][:4] + "…", path)


def shown_text(text: str) -> str:
    """Text with each URL in it as `shown_url` shows it; one ends at a space, a quote or an angle bracket."""
    return _URL.sub(lambda found: shown_url(found[0]), text)
