"""Servers of this package over real sockets, for tests that ask one."""

import threading
import time

import pytest

from accord.stages.serve.config import Serve
from accord.stages.serve.run import make_app


class Serving:
    """`serving(snapshot)` gives the address of a server of it; `stop(address)` ends that one."""

    def __init__(self):
        self._running = {}

    def __call__(self, where, *, port=0, **knobs):
        import uvicorn

        config = uvicorn.Config(make_app(Serve(snapshot=str(where), **knobs)), log_level="error", ws="none")
        config.port = port
        server = uvicorn.Server(config)
        socket = config.bind_socket()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        self._running[url] = server, thread, socket
        return url

    def stop(self, url):
        server, thread, socket = self._running.pop(url)
        server.should_exit = True
        thread.join()
        socket.close()

    def again(self, url, where):
        """A server of this snapshot at an address that one had before."""
        return self(where, port=int(url.rpartition(":")[2]))

    def close(self):
        for url in list(self._running):
            self.stop(url)


@pytest.fixture
def serve():
    started = Serving()
    yield started
    started.close()
