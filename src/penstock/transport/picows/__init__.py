"""The default transport: frames cut and unmasked by ``picows``, sockets and TLS by ``aiofastnet`` below it.

The opening handshake is judged by the Sans-I/O protocols of ``websockets``, so that rules and exceptions are those of
that library; only then is the stream given to the core parser of ``picows``. What is sent, PONG and CLOSE included,
never comes from there: its masks are drawn from an unseeded ``rand()``, the same in every process.
"""

from __future__ import annotations

import logging


def _can_be_shown(record: logging.LogRecord) -> bool:
    """False for what `aiofastnet` has event loops log of a peer that leaves the TLS handshake.

    It gives them the class of the error in place of the error, which no log handler can show: each prints a traceback
    of its own. Whoever opens the connection gets the error; other errors of handshakes are not logged either.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], type))


logging.getLogger("asyncio").addFilter(_can_be_shown)
