"""Collect: the page on which people answer, on this machine, by FastAPI and uvicorn; questions come while it runs."""

import os
import secrets
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accord.engine.remote.http import LOCAL
from accord.errors import BadInput
from accord.evaluation.checks import CheckRule
from accord.feedback.store.database import Database, resolve
from accord.stages.collect.config import Collect
from accord.stages.collect.rounds import JUDGING, TRAINING, follow

if TYPE_CHECKING:
    from accord.feedback.web.replies import Responder
    from accord.stages.collect.snapshots import Snapshots

INSTALL = "the page needs FastAPI and more; install it with: pip install 'accord[collect]'"


def run(config: Collect) -> None:
    """Serve the page until Ctrl-C."""
    try:
        import python_multipart  # noqa: F401 - FastAPI reads forms by it
        import uvicorn
    except ImportError:
        raise BadInput(INSTALL) from None
    snapshots = open_snapshots(config) if config.snapshots else None
    database = Database(config.database, writes=True)
    try:
        app = make_app(config, database, snapshots)
        server = uvicorn.Config(app, host=config.host, port=config.port, log_level="warning", ws="none")
        server.server_header = False
        socket = server.bind_socket()
        socket.listen()  # who follows an invitation at once waits, and is not turned away
        port = socket.getsockname()[1]
        print("\n".join(greeting(config, app, port)), flush=True)
        stopped = threading.Event()
        drawing = threading.Thread(target=ask, args=(config, app, snapshots, stopped), daemon=True)
        if config.rounds:
            drawing = threading.Thread(target=follow, args=(Path(config.rounds), app, stopped), daemon=True)
        if snapshots is not None or config.rounds:
            drawing.start()
        uvicorn.Server(server).run(sockets=[socket])
        stopped.set()
        if drawing.is_alive():
            drawing.join()
    finally:
        database.close()


def open_snapshots(config: Collect) -> "Snapshots":
    from accord.stages.collect.snapshots import Snapshots

    return Snapshots(config)


def make_app(config: Collect, database: Database, responder: "Responder | None" = None) -> Any:
    """The application of a store; `responder` replies in conversations.

    Raises BadInput for a file that cannot be used.
    """
    from accord.feedback.store.desk import Desk
    from accord.feedback.store.exposure import Caps
    from accord.feedback.store.people import People
    from accord.feedback.store.questions import LIVE, Live, Picks
    from accord.feedback.store.selection import Selection
    from accord.feedback.store.talks import LiveQuestion, Talks
    from accord.feedback.web.app import make_page
    from accord.feedback.web.context import Settings
    from accord.feedback.web.replies import ReplyQueue

    settings = Settings(
        secret=page_secret(Path(config.secret) if config.secret else secret_place(config.database)),
        guidelines=_text_of(config.guidelines),
        categories=tuple(config.categories),
        help_line=config.help_line,
        hosts=(*sorted(LOCAL), *config.hosts, *([config.host] if config.host not in (*LOCAL, "0.0.0.0", "::") else [])),
        prefix=config.prefix,
        secure=config.secure,
    )
    caps = Caps(config.harmful_a_day, config.harmful_in_a_row, 60 * config.pause_minutes)
    rule = CheckRule(config.check_least, config.check_right)
    desk = Desk(database, caps=caps, selection=Selection(config.check_share, config.random_share, rule))
    picks: dict[Live, Picks] = {"chat": "better", "redteam": config.picks}
    live = {mode: LiveQuestion(tuple(config.criterion), picks[mode]) for mode in LIVE if mode in config.mode}
    replies = ReplyQueue(Talks(desk, live), responder) if live and responder else None
    return make_page(desk, People(database), settings, replies)


def greeting(config: Collect, app: Any, port: int) -> list[str]:
    """Where the page is, and the invitations: one for an admin at the first start, one for people at each."""
    people = app.state.page.people
    name = config.hosts[0] if config.hosts else f"{config.host}:{port}"
    base = f"{'https' if config.secure else 'http'}://{name}{config.prefix}"
    open_to = "" if config.host in LOCAL else ", open to everybody who reaches this machine"
    lines = [f"{config.database}: {base}/{open_to}; Ctrl-C ends it"]
    if not any(person.role == "admin" and person.name for person in people.all()):
        lines.append(f"to be the admin:    {base}/join/{people.invite('admin', by=None)}")
    # whose labels train is never asked to judge what was trained: each link leads to the one kind of question alone
    for tag in (TRAINING, JUDGING) if config.rounds else ():
        link = people.invite("annotator", by=None, uses=20, tags=(tag,))
        lines.append(f"to invite 20 people for {tag}: {base}/join/{link}")
    if not config.rounds:
        lines.append(f"to invite 20 people: {base}/join/{people.invite('annotator', by=None, uses=20)}")
    return lines


def ask(config: Collect, app: Any, snapshots: "Snapshots", stopped: threading.Event) -> None:
    """Draw replies and put them on the desk, a few at a time, so that the first question comes soon."""
    from accord.stages.collect.fresh import draw_items

    desk = app.state.page.desk
    added = 0
    try:
        snapshots.all()
        for mode in config.drawn:
            for items in draw_items(config, mode, snapshots):
                added += desk.add(items)
                if stopped.is_set():
                    return
        whose = ", ".join(config.snapshots)
        print(f"{added} new questions of {whose} are on the desk" if config.drawn else f"{whose}: ready", flush=True)
    except BadInput as error:
        print(f"no more questions: {error}", flush=True)


def secret_place(address: str) -> Path:
    """Beside a SQLite store; of PostgreSQL, in the working directory."""
    _, path = resolve(address)
    return Path(f"{path}.secret") if path else Path("feedback.secret")


def page_secret(path: Path) -> bytes:
    """The page's secret, made at the first start. Raises BadInput where others may read it, or it is too short."""
    try:
        with open(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", newline="\n"
        ) as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    except OSError as error:
        raise BadInput(f"{path}: the page's secret cannot be written ({error.strerror})") from None
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise BadInput(f"{path}: others may read the page's secret; chmod 600 it, or delete it for a new one")
    secret = path.read_bytes().strip()
    if len(secret) < 32:
        raise BadInput(f"{path}: holds no secret of 32 characters or more; delete it for a new one")
    return secret


def _text_of(name: str) -> str:
    if not name:
        return ""
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--guidelines {name}: cannot be read as text ({error})") from None
