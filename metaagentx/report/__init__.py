"""What people look at: pages, plots, tables."""

from metaagentx.report.page import write
from metaagentx.report.terminal import show

__all__ = ["show", "write"]
