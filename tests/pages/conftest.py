"""One server, one browser and one queue for all tests of the pages; they end with the last of them."""

import pytest
from browsing import browsing, serving


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("dashboards")) as one:
        yield one


@pytest.fixture(scope="package")
def browser(server):
    with browsing(server) as one:
        yield one


@pytest.fixture
def queue(server):
    server.queue.delete_all()
    for state in server.queue.queues():
        server.queue.resume(state.name)
    for consumer in server.queue.consumers():
        server.queue.unregister_consumer(consumer.id)
    return server.queue
