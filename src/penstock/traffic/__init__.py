"""Traffic for benchmarks and the demo: embedded servers, clients of every library, and how they are measured.

Each end runs in a process of its own (`python -m penstock.traffic.server`, `python -m penstock.traffic.client`),
pinned to a core where there are two, so that neither takes time from the other.
"""
