"""Processes that work for this one, in pools that import once and end with whoever began them."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor


def pool(count: int) -> ProcessPoolExecutor:
    """So many processes, each begun anew: a forked one would hold locks of threads it has not."""
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _begin)


def _begin() -> None:
    """Ctrl-C reaches the whole group: a running stage hears it by its own handler, an idle worker need not. Whoever
    started the worker may be killed alone: then it stops too, and leaves a run to go on from."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    # a training stage stops after its step; anything else at once
    os.kill(os.getpid(), signal.SIGTERM)
