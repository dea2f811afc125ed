"""Labelers by name: a model of this machine, or PROTOCOL:URL#MODEL of a server."""

from accord.config import Asking, is_server
from accord.labelers.budget import Budget, Prices
from accord.labelers.endpoint import Caller, Endpoint
from accord.labelers.journal import Journal
from accord.labelers.labeler import Labeler
from accord.labelers.local import LocalLabeler
from accord.labelers.remote import RemoteLabeler
from accord.training.distributed import World


class Labelers:
    """The labelers of a run: one journal, and one budget, of which the journal knows what is spent."""

    def __init__(self, asking: Asking, world: World, journal: Journal, cache_tokens: int = 0) -> None:
        self._asking, self._world, self._journal, self._cache = asking, world, journal, cache_tokens
        calls, cost = (sum(row.get(name, 0) for row in journal.rows) for name in ("calls", "cost"))
        prices = Prices(asking.price_sent, asking.price_answered)
        self._budget = Budget(asking.max_calls, asking.max_cost, prices, calls=calls, cost=cost)

    def named(self, where: str) -> Labeler:
        """The labeler that `where` names. Raises BadInput if there is none."""
        asking = self._asking
        if not is_server(where):
            return LocalLabeler(where, self._world, self._journal, cache_tokens=self._cache)
        endpoint = Endpoint.named(
            where,
            key_variable=asking.key_variable,
            allow_local=asking.allow_local,
            timeout=asking.timeout,
            attempts=asking.attempts,
            at_once=asking.at_once,
            samples=asking.draws,
        )
        return RemoteLabeler(Caller(endpoint, self._budget), self._journal)
