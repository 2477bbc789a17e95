"""What the queue is in any SQL database; the backends below it hold only what differs."""
