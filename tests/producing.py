"""What the producer's tests share: a producer in a thread, and waiting for a condition with a limit."""

import contextlib
import threading
import time

from pq.producer import produce

LIMIT_SECONDS = 20


def until(condition):
    """Wait for a true value of `condition` and return it."""
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"not true within {LIMIT_SECONDS} s")


@contextlib.contextmanager
def producing(queue, **options):
    """A producer in a thread of its own; the list receives its summary."""
    summaries = []
    options = {"name": "producer-1", "interval": 0.02, "display": False} | options
    thread = threading.Thread(target=lambda: summaries.append(produce(queue, **options)))
    thread.start()
    try:
        until(lambda: queue.consumers() or not thread.is_alive())
        yield summaries
    finally:
        queue.stop_consumer(options["name"])
        thread.join(LIMIT_SECONDS)
    assert not thread.is_alive()


def paths(queue):
    return sorted(job.parameters["path"] for job in queue.list(limit=1000))


def produce_from(queue, source, count, **options):
    options = {"interval": 0.01, "display": False} | options
    return produce(queue, source=source, count=count, **options)
