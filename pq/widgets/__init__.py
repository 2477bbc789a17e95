"""The two pages as widgets: `OpsBoard` shows a queue, `AdminBoard` also acts on it."""

from pq.widgets.admin import AdminBoard
from pq.widgets.ops import OpsBoard

__all__ = ["AdminBoard", "OpsBoard"]
