"""Report: run folders → one self-contained HTML page."""

from pathlib import Path

from accord.disk import write_text
from accord.errors import BadInput
from accord.lineage import available_cores
from accord.stages.report.config import Report


def run(config: Report) -> Path:
    """Write the page; returns its path."""
    from accord.reporting import build_report

    folders = [Path(folder) for folder in config.runs]
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"{folder}: no such run folder")
    page = build_report(folders, title=config.title, processes=available_cores())
    write_text(Path(config.out), page)
    print(f"wrote {config.out}")
    return Path(config.out)
