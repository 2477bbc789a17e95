"""The two pages as widgets: `OpsBoard` shows a queue, `AdminBoard` acts on it; `JobTable` is its list."""

from pq.widgets.admin import AdminBoard, JobTable
from pq.widgets.board import is_read_only
from pq.widgets.ops import OpsBoard

__all__ = ["AdminBoard", "JobTable", "OpsBoard", "is_read_only"]
