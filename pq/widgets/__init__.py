"""The two pages as widgets: `OpsBoard` shows a queue, `AdminBoard` acts on it; `JobTable` is its list.

`JobCard` and `SweepCard` are one job and one sweep, with buttons, for one's own notebook.
"""

from pq.widgets.admin import AdminBoard, JobTable
from pq.widgets.board import is_read_only
from pq.widgets.cards import JobCard, SweepCard
from pq.widgets.ops import OpsBoard

__all__ = ["AdminBoard", "JobCard", "JobTable", "OpsBoard", "SweepCard", "is_read_only"]
