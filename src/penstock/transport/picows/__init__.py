"""The default transport: frames parsed by ``picows``, through its core API (``WSListener``).

``picows`` reads, unmasks and cuts; what is sent, PONG and CLOSE included, is built by penstock, because its masks come
from an unseeded ``rand()``, the same in every process. Its handshakes are judged by the Sans-I/O protocols of
``websockets``, which are shown what the peer sent: so the rules and the exceptions are those of that library.
"""
