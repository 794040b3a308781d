"""Leaves reference cycles with Ray objects, and shuts down while another thread allocates."""

import gc
import threading
import time

import ray

from sweeps.engine.execution import cluster

RARELY, AS_USUAL = 1_000_000, 700  # allocations between two garbage collections


class Cycle:
    """Slow to collect, so that a collection lasts as long as a shutdown."""

    def __init__(self) -> None:
        self.me = self
        self.reference = ray.put(0)

    def __del__(self) -> None:
        time.sleep(0.001)
        del self.reference


def allocate(begun: threading.Event) -> None:
    """Allocate enough to trigger a garbage collection."""
    begun.wait()
    gc.set_threshold(AS_USUAL)
    [[] for _ in range(10 * AS_USUAL)]


if __name__ == "__main__":
    gc.set_threshold(RARELY)
    shutting_down = threading.Event()
    threading.Thread(target=allocate, args=[shutting_down], daemon=True).start()
    shut_down = ray.shutdown

    def shutdown() -> None:
        shutting_down.set()
        shut_down()

    ray.shutdown = shutdown
    with cluster.connected(None):
        for _ in range(2000):
            Cycle()
