"""`python benchmarks/ours/feedback_server.py ADDRESS SECRET`: the page of a store, for as many requests as come.

What one person may do in a minute is not bounded here; everything else is as `accord collect` serves it.
"""

import sys

import uvicorn

from accord.feedback.store.database import Database
from accord.feedback.store.desk import Desk
from accord.feedback.store.people import People
from accord.feedback.web.app import make_page
from accord.feedback.web.context import Settings
from accord.feedback.web.guard import RequestRates


def main(address: str, secret: str) -> None:
    """Print the port, then serve until killed."""
    database = Database(address, writes=True)
    page = make_page(Desk(database), People(database), Settings(secret=secret.encode()))
    page.state.clicks = RequestRates(2**31, 1e-9)
    server = uvicorn.Config(page, host="127.0.0.1", port=0, log_level="warning", ws="none")
    socket = server.bind_socket()
    socket.listen()
    print(socket.getsockname()[1], flush=True)
    uvicorn.Server(server).run(sockets=[socket])


if __name__ == "__main__":
    main(*sys.argv[1:])
