"""The run folder: what every stage leaves, in files a person can open.

`config.yaml` (resolved) · `lineage.json` · `metrics.jsonl` · `samples.jsonl` · `checkpoints/` · `snapshot/` ·
`manifest.json` (hash of every file; its presence says that the run is finished). Everything but the two growing
logs is written to a temporary name, synced and renamed: a file that is there is whole.
"""

import hashlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from accord import __version__
from accord.config import Config, to_plain
from accord.disk import lines_of, read_json, read_yaml, sync, write_text, write_yaml
from accord.errors import BadInput, Interrupted, is_disk_full
from accord.lineage import available_cores, hash_file, identity, machine, peak_memory, seconds_worked

if TYPE_CHECKING:
    from filelock import FileLock

C = TypeVar("C", bound=Config)
PARENTS = "data/parents.json"  # what they are; written at every start
WORKED = "data/worked.json"  # how long starts that did not come to the end took
TORN = 2**62  # the step of the torn last line that a killed run can leave
# Knobs that say where a run lies and how it is kept, not what is computed: they may differ on resume and are no part of
# a config's hash. Threads and compiled kernels add up in another order, and are part of it.
PLACEMENT = frozenset(
    {"out", "resume", "micro_tokens", "recompute", "cache_tokens", "checkpoint_every", "checkpoint_minutes", "track"}
    | {"shard", "allow_local", "key_variable", "max_calls", "max_cost", "price_sent", "price_answered"}
    | {"timeout", "attempts", "at_once", "wait"}
)
# Knobs at these values are decided by the machine at the start; `config.yaml` has what was decided.
UNDECIDED: dict[str, Any] = {
    "precision": "auto",
    "micro_tokens": 0,
    "recompute": "auto",
    "compile": "auto",
    "threads": 0,
    "clock": "",
    "learning_rate": 0.0,
    "critic_learning_rate": 0.0,
}


def config_hash(config: Config) -> str:
    """16 hex digits over every knob that can change a result; what the machine is to decide counts as undecided."""
    return _hash(to_plain(config))


def _hash(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_computed(plain), sort_keys=True).encode()).hexdigest()[:16]


def _computed(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs that can change a result. Of an engine it is what draws that counts, not where it answers."""
    kept = {key: value for key, value in plain.items() if key not in PLACEMENT}
    if "labeling" in kept:
        kept["labeling"] = {key: value for key, value in kept["labeling"].items() if key not in PLACEMENT}
    return kept | ({"engine": "vllm" if kept["engine"] else ""} if "engine" in kept else {})


class RunFolder:
    """One stage's output. Use as a context manager: it holds the folder's lock and hears Ctrl-C.

    `origin` tells, at the end, what the lineage says of where data came from beside the parents. `follower`, where one
    is set, is given every row that is logged (`log`), and closed before the files are hashed (`close`).
    Raises BadInput if the folder is not empty and `resume` is off, is in use, or was made by another config.
    """

    def __init__(
        self,
        stage: str,
        config: Any,
        parents: Mapping[str, str | Path] | None = None,
        *,
        origin: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.stage = stage
        self.config = config
        self.path = Path(config.out)
        self.origin = origin
        self.parents = {role: os.fspath(path) for role, path in (parents or {}).items()}
        self._identities: dict[str, dict[str, Any]] = {}
        self.stop_requested = False
        self.follower: Any = None
        # under torchrun or accelerate every rank opens the folder, and the first alone writes it
        self.is_main = os.environ.get("RANK", "0") == "0"
        self._lock: FileLock | None = None
        self._fresh = False
        self._made: list[Path] = []
        self._decided: dict[str, Any] = {}
        self._sources: list[dict[str, Any]] = []
        self._started = time.time()
        self._handlers: dict[int, Any] = {}

    @property
    def snapshot(self) -> Path:
        return self.path / "snapshot"

    @property
    def finished(self) -> bool:
        return (self.path / "manifest.json").exists()

    @property
    def threads(self) -> int:
        """CPU threads of this process: what the config says, else its share of the cores where the run began."""
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return int(self.decide("threads", lambda: max(1, available_cores() // ranks)))

    @property
    def clock(self) -> str:
        """The time that chat templates are told, in ISO form: what the config says, else when the run began."""
        began = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(self._started))
        return str(self.decide("clock", lambda: began))

    def __enter__(self) -> "RunFolder":
        self._open()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._request_stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self.follower is not None:
            self.follower.close()
        if self._lock is not None:
            self._lock.release()
        if kind is not None and issubclass(kind, BadInput):
            self._forget()

    def _forget(self) -> None:
        """Remove a new folder in which nothing was done, so that the same call with its input mended can follow."""
        if self._fresh and {p.name for p in self.path.iterdir()} <= {".lock", "config.yaml", "data", "tokenizer"}:
            shutil.rmtree(self.path)
            for folder in self._made[1:]:
                with suppress(OSError):  # somebody else's folder stands in it by now
                    folder.rmdir()

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        if self.stop_requested:
            raise KeyboardInterrupt
        self.stop_requested = True
        if self.is_main:
            os.write(2, b"\nstopping after this step; once more stops at once\n")  # print is not safe in a handler

    def interrupted(self, step: int, unit: str = "step") -> Interrupted:
        """The exception a loop raises once it has written its checkpoint after `step`."""
        return Interrupted(f"stopped after {unit} {step}; --resume goes on from it ({self.path})")

    def _open(self) -> None:
        if not self.is_main:
            if (stored := self.path / "config.yaml").exists():
                self._remember(read_yaml(stored))
            return
        if self.path.exists() and not self.path.is_dir():
            raise BadInput(f"--out {self.path} is a file; name a folder")
        present = [p for p in self.path.iterdir() if p.name != ".lock"] if self.path.is_dir() else []
        if present and not self.config.resume:
            raise BadInput(f"--out {self.path} is not empty; choose another folder, or go on with --resume")
        self._fresh = not present
        self._made = [p for p in (self.path, *self.path.parents) if not p.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if is_disk_full(error):
                raise
            raise BadInput(f"--out {self.path}: cannot be made ({error.strerror}); choose another folder") from None
        from filelock import FileLock, Timeout  # here: `accord --help` needs none

        self._lock = FileLock(self.path / ".lock")
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            self._lock = None
            raise BadInput(f"--out {self.path} is in use by another process; choose another folder") from None
        try:
            self._sweep()
            worked = self._worked() + seconds_worked(self.path, self.path / PARENTS)
            self._write_config()
            self._keep_parents()
            if worked and not self.finished:
                self.write_json(WORKED, {"seconds": round(worked, 2)})
        except BaseException:
            self._lock.release()
            raise

    def _sweep(self) -> None:
        """Remove what a write that was killed has left; the lock is held, so nobody writes here."""
        for folder in (self.path, self.path / "data"):
            for file in folder.glob(".*.part"):
                shutil.rmtree(file) if file.is_dir() else file.unlink()

    def _write_config(self) -> None:
        stored = self.path / "config.yaml"
        plain = to_plain(self.config)
        if stored.exists():
            before = read_yaml(stored)
            self._remember(before)
            plain |= self._decided
            was, now = _computed(before), _computed(plain)
            changed = sorted(k for k in {*was, *now} if was.get(k) not in (now.get(k), UNDECIDED.get(k, now.get(k))))
            if changed:
                raise BadInput(
                    f"{stored}: --resume with another --{changed[0]} ({before.get(changed[0])!r} before, "
                    f"{plain.get(changed[0])!r} now); give the same, or choose another --out"
                )
        if not self.finished:  # its files are those of the manifest
            write_yaml(stored, plain)

    def _keep_parents(self) -> None:
        """Keep what the parents are; BadInput where one is another than when this run began."""
        if self.finished:
            return
        self._identities = {role: identity(path) for role, path in self.parents.items()}
        stored = self.path / PARENTS
        for role, was in read_json(stored).items() if stored.exists() else ():
            if any(was.get(key) not in (None, self._identities[role].get(key)) for key in ("hash", "revision")):
                raise BadInput(f"{was['path']}: changed since this run began; bring it back, or choose another --out")
        self.write_json(PARENTS, self._identities)

    def _worked(self) -> float:
        """Seconds that earlier starts took."""
        stored = self.path / WORKED
        return float(read_json(stored)["seconds"]) if stored.exists() else 0.0

    def _remember(self, before: Mapping[str, Any]) -> None:
        """Keep what an earlier start decided."""
        self._decided = {k: before.get(k, v) for k, v in UNDECIDED.items() if getattr(self.config, k, None) == v}

    def decide(self, knob: str, choose: Callable[[], Any]) -> Any:
        """The value of a knob that was left to the machine: what an earlier start decided, else what `choose` says."""
        value = getattr(self.config, knob)
        if value != UNDECIDED[knob]:
            return value
        value = self._decided.get(knob, value)
        if value == UNDECIDED[knob]:
            self._decided[knob] = value = choose()
            if self.is_main:
                plain = read_yaml(stored := self.path / "config.yaml") | {knob: value}
                write_yaml(stored, plain)
        return value

    def truncate_logs(self, step: int) -> None:
        """Forget what was logged after `step`, which a resume is about to do again."""
        for name in ("metrics.jsonl", "samples.jsonl"):
            path = self.path / name
            if self.is_main and path.exists():
                write_text(path, "".join(line + "\n" for line in lines_of(path) if _step_of(line) <= step))

    def keep_samples(self, multiple: int) -> int:
        """Keep the longest start of `samples.jsonl` that is a multiple of so many whole lines; returns their number."""
        path = self.path / "samples.jsonl"
        if not path.exists():
            return 0
        lines = lines_of(path)
        if lines and _step_of(lines[-1]) == TORN:
            lines.pop()
        kept = lines[: len(lines) // multiple * multiple]
        if self.is_main:
            write_text(path, "".join(line + "\n" for line in kept))
        return len(kept)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one object to `metrics.jsonl`."""
        self.append("metrics.jsonl", row)
        if self.follower is not None:
            self.follower.log(row)

    def add_sample(self, row: Mapping[str, Any]) -> None:
        """Append one object to `samples.jsonl`."""
        self.append("samples.jsonl", row)

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Append one object to a JSON-lines file of the folder."""
        if self.is_main:
            with open(self.path / name, "a", encoding="utf-8", newline="\n") as stream:
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")

    def write_json(self, name: str, value: Any) -> None:
        """Write a whole JSON file into the folder, or nothing."""
        if self.is_main:
            write_text(self.path / name, json.dumps(value, ensure_ascii=False, indent=1) + "\n")

    def keep_sources(self, knob: str, report: Sequence[Mapping[str, Any]]) -> None:
        """Write what a knob's sources held to `data/KNOB.json`, and keep where their rows came from for the lineage.

        `report` has a row for each source, with its `name`, `source`, number of `rows` and their `hash`.
        Raises BadInput where an earlier start of this run read other rows.
        """
        stored = self.path / "data" / f"{knob}.json"
        before = {row["name"]: row.get("hash") for row in read_json(stored)} if stored.exists() else {}
        for row in report:
            if before.get(row["name"], row["hash"]) != row["hash"]:
                raise BadInput(
                    f"{row['source']}: these are not the rows, or not in the order, that this run began with; --resume "
                    "needs the same: bring them back, or choose another --out"
                )
            self._sources.append({"knob": knob} | {key: row[key] for key in ("name", "source", "rows", "hash")})
        self.write_json(f"data/{knob}.json", report)

    @contextmanager
    def new_snapshot(self) -> Iterator[Path]:
        """A fresh directory that becomes `snapshot/` when the block ends well."""
        temporary = self.path / ".snapshot.part"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        for file in filter(Path.is_file, temporary.rglob("*")):
            sync(file)
        shutil.rmtree(self.snapshot, ignore_errors=True)
        os.replace(temporary, self.snapshot)

    def finish(self, **facts: Any) -> None:
        """Write lineage and manifest: the run is complete. `facts` go into the lineage."""
        if not self.is_main:
            return
        if self.follower is not None:
            self.follower.close()
        now = time.time()
        self.write_json(
            "lineage.json",
            {
                "stage": self.stage,
                "parents": [{"role": role, **identity} for role, identity in self._identities.items()],
                "sources": self._sources,
                "config_hash": _hash(to_plain(self.config) | self._decided),
                "version": __version__,
                **self.origin(),
                "seed": getattr(self.config, "seed", None),
                "machine": machine(),
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._started)),
                "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
                "seconds": round(now - self._started + self._worked(), 2),
                "peak_memory": peak_memory(),
                **facts,
            },
        )
        files = sorted(p for p in self.path.rglob("*") if p.is_file() and p.name not in (".lock", "manifest.json"))
        self.write_json("manifest.json", {p.relative_to(self.path).as_posix(): hash_file(p) for p in files})


def decided(config: Any, knob: str) -> Any:
    """The value of a knob that may have been left to the machine, as the run folder's `config.yaml` has it."""
    value = getattr(config, knob)
    stored = Path(config.out) / "config.yaml"
    left = value == UNDECIDED.get(knob) and stored.is_file()
    return read_yaml(stored).get(knob, value) if left else value


def settled(config: C) -> C:
    """The config with everything that was left to the machine as the run folder's `config.yaml` has it."""
    left = [knob for knob, value in UNDECIDED.items() if getattr(config, knob, None) == value]
    return config.model_copy(update={knob: decided(config, knob) for knob in left})


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line).get("step", 0))
    except json.JSONDecodeError:
        return TORN


def verify(path: Path) -> None:
    """Check a finished run folder against its manifest; BadInput names the first file that differs."""
    for name, expected in read_json(path / "manifest.json").items():
        file = path / name
        if not file.exists():
            raise BadInput(f"{file}: listed in the manifest but missing")
        if hash_file(file) != expected:
            raise BadInput(f"{file}: differs from the manifest; it was changed after the run")
