"""What stages cost apart from what a test is about, done once; servers of this package over real sockets."""

import html
import threading
import time

import pytest

from accord.engine.decode import decoder
from accord.engine.forward import causal
from accord.reporting import figures
from accord.stages.report import run as report
from accord.stages.serve.config import Serve
from accord.stages.serve.run import make_app


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures are not drawn, nor processes begun that would: tests/reporting looks at both."""
    monkeypatch.setattr(figures, "_svg", lambda canvas, label: '<svg role="img"></svg>')
    monkeypatch.setattr(report, "available_cores", lambda: 1)


@pytest.fixture
def drawn(undrawn, monkeypatch):
    """But for a test that reads the words of one."""

    def words(canvas, label):
        from matplotlib.text import Text

        found = " ".join(text.get_text() for text in canvas.figure.findobj(Text))
        return f'<svg role="img" aria-label="{html.escape(label)}">{html.escape(found)}</svg>'

    monkeypatch.setattr(figures, "_svg", words)


RIGHT = {}


@pytest.fixture(autouse=True)
def tried_once(monkeypatch):
    """A model of a make that has given its own numbers here is not tried again: tests/engine is about that."""

    def once(module):
        probe = module._probe

        def ask(*models):
            inner = models[-1]
            make = (module, repr(inner), inner.config.to_json_string(use_diff=False), inner.config._attn_implementation)
            if make not in RIGHT and (found := probe(*models)) not in (True, causal._by_layers):
                return found
            return RIGHT.setdefault(make, module is decoder or causal._by_layers)

        monkeypatch.setattr(module, "_probe", ask)

    once(causal)
    once(decoder)


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
