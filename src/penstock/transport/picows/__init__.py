"""The default transport: frames cut and unmasked by ``picows``, sockets and TLS by ``aiofastnet`` below it.

The opening handshake is judged by the Sans-I/O protocols of ``websockets``, so that rules and exceptions are those of
that library; only then is the stream given to the core parser of ``picows``. What is sent, PONG and CLOSE included,
never comes from there: its masks are drawn from an unseeded ``rand()``, the same in every process.
"""
