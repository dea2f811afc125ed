"""Knobs of the report."""

from pydantic import Field

from accord.config import Config


class Report(Config):
    """Put run folders into one HTML page."""

    runs: list[str] = Field(description="run folders, in the order of the flow")
    out: str = Field("report.html", description="page to write")
    title: str = Field("Accord report", description="heading of the page")
