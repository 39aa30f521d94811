"""A run told on one page, a dataset card beside it, and many runs in one table or one picture.

Each reads files of a run and writes a file of a run. What a run has not made is said where it would stand; nothing is
left out in silence.
"""

from benchmarks.report.card import write_card
from benchmarks.report.compare import Swept, compare
from benchmarks.report.over import write_over
from benchmarks.report.page import write_report

__all__ = ["Swept", "compare", "write_card", "write_over", "write_report"]
