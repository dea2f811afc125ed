"""A PostgreSQL of one's own in a temporary folder, for tests and benchmarks."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def why_not() -> str:
    """Why none can be started here; empty where one can."""
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        return "PostgreSQL is not installed (apt install postgresql)"
    if os.geteuid() == 0 and "postgres" not in {entry.pw_name for entry in pwd.getpwall()}:
        return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


@contextmanager
def cluster(*, durable: bool) -> Iterator[str]:
    """The address of a new one, which ends with the block; one that is not `durable` does not wait for the disk."""
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # the path of a socket must be short
    folder.chmod(0o777)

    def call(*command: str) -> None:
        environment = {**os.environ, "HOME": str(folder)}
        subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL, env=environment, cwd=folder, **user)

    try:
        call("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "accord", *([] if durable else ["-N"]))
        options = f"-k {folder} -c listen_addresses=" + ("" if durable else " -c fsync=off")
        call("pg_ctl", "-D", str(folder / "data"), "-o", options, "-w", "-l", str(folder / "log"), "start")
        try:
            yield f"postgresql:///postgres?host={folder}&user=accord"
        finally:
            call("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
