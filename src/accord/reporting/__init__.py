"""Numbers to figures, and run folders to one HTML page that needs nothing else."""

from accord.reporting.page import build_report
from accord.reporting.runs import RunData, load_run

__all__ = ["RunData", "build_report", "load_run"]
