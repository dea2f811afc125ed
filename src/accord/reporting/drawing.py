"""Figures drawn in both widths: in this process when the page is put together, or by others from the moment on that
their data is known."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import NamedTuple

from accord.processes import pool
from accord.reporting import figures
from accord.reporting.blocks import Figure
from accord.reporting.figures import NARROW, WIDTH

MOST = 4  # more processes than this would import for longer than they draw


class Picture(NamedTuple):
    """SVG of one figure."""

    wide: str
    narrow: str


class Pictures:
    """Takes figures, and gives them as pictures when all are known."""

    def __init__(self, others: Executor | None) -> None:
        self._others = others
        self._begun: dict[Figure, tuple[Callable[[], str], Callable[[], str]]] = {}

    def begin(self, blocks: Iterable[Figure]) -> None:
        for figure in blocks:
            self._begun[figure] = (self._drawn(figure, WIDTH), self._drawn(figure, NARROW))

    def drawn(self) -> dict[Figure, Picture]:
        return {figure: Picture(wide(), narrow()) for figure, (wide, narrow) in self._begun.items()}

    def _drawn(self, figure: Figure, width: float) -> Callable[[], str]:
        if self._others is None:
            return lambda: figure.drawn(width)
        return self._others.submit(figure.drawn, width).result


@contextmanager
def drawing(processes: int) -> Iterator[Pictures]:
    """Raises what drawing raised, or BrokenProcessPool where a process was killed."""
    if processes == 1:
        yield Pictures(None)
        return
    count = min(processes, MOST)
    others = pool(count)
    try:
        for _ in range(count):  # they import while this one reads the runs
            others.submit(figures.warm)
        yield Pictures(others)
    finally:
        others.shutdown(wait=False, cancel_futures=True)
