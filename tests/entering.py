"""Jobs in each status, by the verbs that lead there."""


def enter(queue, status):
    """A job in this status."""
    if status == "blocked":
        queue.limit_group("full", 1)
        queue.enqueue("stamp", group="full")
        return queue.enqueue("stamp", group="full").id
    job = queue.enqueue("stamp", max_attempts=1, delay=3600 if status == "scheduled" else None)
    if status in {"processing", "completed", "failed"}:
        job = queue.dequeue("tester")
    if status == "completed":
        queue.complete(job)
    if status == "failed":
        queue.fail(job, "broken")
    if status == "cancelled":
        queue.cancel(job)
    assert queue.get(job).status == status
    return job.id
