"""Labelers by name: a model of this machine, or PROTOCOL:URL#MODEL of a server."""

from accord.config import Asking, is_server
from accord.labelers.budget import Budget, Prices
from accord.labelers.endpoint import Caller, Endpoint
from accord.labelers.journal import Journal
from accord.labelers.labeler import Labeler
from accord.labelers.local import LocalLabeler
from accord.labelers.remote import RemoteLabeler
from accord.training.distributed import World


def open_labeler(where: str, asking: Asking, world: World, journal: Journal) -> Labeler:
    """The labeler that `where` names, with what the journal says was spent on it. Raises BadInput if there is none."""
    if not is_server(where):
        return LocalLabeler(where, world, journal)
    endpoint = Endpoint.named(
        where,
        key_variable=asking.key_variable,
        allow_local=asking.allow_local,
        timeout=asking.timeout,
        attempts=asking.attempts,
        at_once=asking.at_once,
        samples=asking.draws,
    )
    calls, cost = (sum(row.get(name, 0) for row in journal.rows) for name in ("calls", "cost"))
    prices = Prices(asking.price_sent, asking.price_answered)
    budget = Budget(asking.max_calls, asking.max_cost, prices, calls=calls, cost=cost)
    return RemoteLabeler(Caller(endpoint, budget), journal)
