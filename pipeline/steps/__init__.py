"""The steps of a run: sample, plan, make, control, train, verify, report.

Each reads files of the run and writes files of the run, whole or not at all, so that any of them can be done again
alone, and a run that was cut short goes on where it stopped.
"""

from pipeline.steps.control import Size, begin_control, size
from pipeline.steps.files import write_text
from pipeline.steps.make import make
from pipeline.steps.order import Order, Portraits
from pipeline.steps.plan import Plan, plan
from pipeline.steps.report import report
from pipeline.steps.sample import sample
from pipeline.steps.seeds import stream
from pipeline.steps.train import train
from pipeline.steps.verify import mean_accuracy, verify

__all__ = [
    "Order",
    "Plan",
    "Portraits",
    "Size",
    "begin_control",
    "make",
    "mean_accuracy",
    "plan",
    "report",
    "sample",
    "size",
    "stream",
    "train",
    "verify",
    "write_text",
]
