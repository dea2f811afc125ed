"""What a fleet counts and waits for, with servers that are no more than names and a clock that is set by hand."""

import threading
from types import SimpleNamespace

import pytest

from accord.engine.remote import fleet as fleets
from accord.engine.remote.fleet import BUSY, TRIES, Away, Errand, Fleet, ServerAway
from accord.errors import BadInput


class Named:
    """A server that says that it is well from its `well`-th look on."""

    def __init__(self, url, well=10**9):
        self.url, self.well, self.looks = url, well, 0

    def is_well(self):
        self.looks += 1
        return self.looks >= self.well


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0, slept=[], looked=0)
    real = fleets.monotonic, fleets.sleep
    # of other tests, whose servers are away for good
    strangers = set(threading.enumerate()) - {threading.current_thread()}

    def monotonic():
        if threading.current_thread() in strangers:
            return real[0]()
        clock.looked += 1
        assert clock.looked < 1000, "nobody sleeps"
        return clock.now

    def sleep(seconds):
        if threading.current_thread() in strangers:
            return real[1](seconds)
        clock.slept.append(seconds)
        clock.now += seconds

    monkeypatch.setattr(fleets, "monotonic", monotonic)
    monkeypatch.setattr(fleets, "sleep", sleep)
    return clock


def away(server, patience=100.0, revive=lambda server: None):
    return Away(server, Fleet([server], revive, patience=patience))


def within(seconds, work):
    """What `work` gives or raises; a test that would hang fails."""
    found = []

    def run():
        try:
            found.append((work(), None))
        except BaseException as error:
            found.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it does not end"
    answer, error = found[0]
    if error is not None:
        raise error
    return answer


def test_what_is_given_where_nothing_is_said():
    fleet = Fleet(iter(["a", "b"]), None)
    assert (fleet.servers, fleet.patience, fleet.at_once) == (["a", "b"], 600.0, 256)
    assert Fleet(["a"], None, at_once=300).at_once == 300
    error = ServerAway("gone", 503, 2.5)
    assert (str(error), error.status, error.pause) == ("gone", 503, 2.5)


@pytest.mark.parametrize(
    ("pause", "slept"),
    [(0.0, [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 0.25]), (3.0, [3.0, 6.0, 10.0, 10.0, 6.75])],
)
def test_looks_at_a_server_that_is_away_are_twice_as_far_apart_each_time(clock, pause, slept, capsys):
    server = Named("http://a")
    gone = away(server, patience=35.75)
    assert not gone.back(0, pause)
    assert clock.slept == slept and server.looks == len(slept)
    assert capsys.readouterr().out == "note: http://a is away; its work waits or goes to others\n"
    assert not gone.back(0, pause) and server.looks == len(slept), "it is given up for good"


def test_a_server_that_is_back_is_waited_for_once_by_all_who_asked_it_before(clock, capsys):
    revived = []
    server = Named("http://a", well=3)
    gone = away(server, revive=revived.append)
    assert gone.returned == 0
    assert gone.back(0, 0.0) and clock.slept == [0.5, 1.0, 2.0] and revived == [server]
    assert gone.back(0, 0.0) and len(clock.slept) == 3, "another thread asked it in the same time of being well"
    assert gone.returned == 1
    assert gone.back(1, 4.0) and clock.slept[3:] == [4.0] and gone.returned == 2 and len(revived) == 2
    assert gone.back(2, 0.0) and gone.returned == 3
    assert capsys.readouterr().out.count("is away") == 3


def test_a_server_that_goes_again_before_it_is_ready_is_waited_for_and_other_trouble_is_told(clock):
    failures = [ServerAway("gone again", 0, 0.0), BadInput("another model")]
    server = Named("http://a", well=1)

    def revive(server):
        if failures:
            raise failures.pop(0)

    gone = away(server, revive=revive)
    with pytest.raises(BadInput, match="another model"):
        gone.back(0, 0.0)
    assert clock.slept == [0.5, 1.0]
    assert gone.back(0, 0.0)


def test_a_busy_server_rests_as_long_as_it_asks_and_is_given_up_when_it_is_nothing_else(clock):
    resting = away(Named("http://a"), patience=4.25)
    assert resting.rested(0.0) and resting.rested(3.0) and resting.rested(0.0)
    assert clock.slept == [0.5, 3.0, 0.5]
    assert resting.rested(2.0) and clock.slept[3:] == [0.25], "no longer than there is patience"
    assert not resting.rested(0.0) and len(clock.slept) == 4
    resting.answered()
    assert not resting.rested(0.0), "it is given up for good"


def test_a_busy_server_that_answers_in_between_is_not_given_up(clock):
    resting = away(Named("http://a"), patience=2.0)
    for _ in range(3):
        assert resting.rested(1.5)
        resting.answered()
    assert clock.slept == [1.5, 1.5, 1.5]


def test_a_server_that_is_given_up_counts_once():
    lost = away(Named("http://a"))
    assert [lost.counts_once() for _ in range(3)] == [True, False, False]


def idle(servers, count=3, **options):
    """An errand that nobody runs."""
    fleet = Fleet(servers, lambda server: None, **options)
    fleet.at_once = 0
    return Errand(count, lambda server, place: place, fleet), fleet


@pytest.mark.parametrize(("status", "what"), [(0, "come back"), (503, "come back"), (BUSY, "answered anything else")])
def test_the_last_server_that_is_given_up_ends_it(clock, status, what, capsys):
    errand, fleet = idle([Named("http://a"), Named("http://b"), Named("http://c")], patience=0.0)
    ways = [Away(server, fleet) for server in fleet.servers]
    error = ServerAway("no answer", status, 1.5)
    assert not errand._mend(ways[0], 0, error) and not errand._mend(ways[1], 0, error)
    assert not errand._mend(ways[0], 0, error), "another thread that asked the first"
    with pytest.raises(ServerAway) as raised:
        errand._mend(ways[2], 0, error)
    assert str(raised.value) == f"no answer; no server has {what} within 0 seconds"
    assert (raised.value.status, raised.value.pause) == (status, 1.5)


def test_a_server_that_has_returned_or_rested_is_asked_on(clock, capsys):
    errand, fleet = idle([Named("http://a", well=1)], patience=9.0)
    there = Away(fleet.servers[0], fleet)
    assert errand._mend(there, 0, ServerAway("no answer", 503, 1.5)) and there.returned == 1
    assert errand._mend(there, 1, ServerAway("no answer", BUSY, 2.5)) and there.returned == 1
    assert clock.slept == [1.5, 2.5]


def test_a_place_that_is_put_back_is_the_next_and_fails_only_so_often():
    errand, _ = idle([Named("http://a")])
    assert errand._take() == 0
    for _ in range(TRIES + 1):  # many threads of one time of being well, and a server that is busy
        errand._put_back(0, ServerAway("broken", 500, 1.5), ("http://a", 0))
        errand._put_back(0, ServerAway("busy", BUSY, 0.0), ("http://a", 5))
    assert errand._take() == 0
    for time in range(1, TRIES - 1):
        errand._put_back(0, ServerAway("broken", 500, 1.5), ("http://a", time))
    errand._put_back(1, ServerAway("broken", 500, 1.5), ("http://a", TRIES))
    with pytest.raises(ServerAway) as raised:
        errand._put_back(0, ServerAway("broken", 500, 1.5), ("http://a", TRIES))
    assert str(raised.value) == "broken (asked 8 times, while it says that it is well)"
    assert (raised.value.status, raised.value.pause) == (500, 1.5)
    assert errand._take() == 1


@pytest.mark.parametrize(("count", "at_once", "each"), [(5, 0, 3), (6, 0, 3), (1, 0, 1), (9, 2, 2), (1000, 0, 256)])
def test_no_server_takes_what_another_could_begin_with(monkeypatch, count, at_once, each):
    made = []

    class NoThread:
        def __init__(self, target, args, daemon):
            assert daemon, "a server that never answers must not keep the program"
            made.append(args[0].url)

        def start(self):
            pass

    monkeypatch.setattr(fleets, "Thread", NoThread)
    Errand(count, None, Fleet([Named("a"), Named("b")], None, at_once=at_once))
    assert made == ["a"] * each + ["b"] * each


def test_what_a_server_leaves_is_done_by_another_that_waits(capsys):
    """It has done its own by then, and may not have gone."""
    done = threading.Event()

    def ask(server, place):
        if server.url == "http://b":
            done.set()
            return f"{place} by b"
        done.wait(5)
        raise ServerAway("gone", 0, 0.0)

    fleet = Fleet([Named("http://a"), Named("http://b")], lambda server: None, patience=0.0)
    assert within(5, lambda: fleet.each(2, ask)) == ["0 by b", "1 by b"]


def test_every_thread_ends_with_the_call_also_where_a_piece_fails():
    before = set(threading.enumerate())
    waiting, told = threading.Event(), []

    def ask(server, place):
        if place == 1:
            waiting.wait(5)
            raise BadInput("no such model")
        return place + 10

    def finished(place, answer):
        told.append((place, answer))
        waiting.set()

    fleet = Fleet([Named("http://a"), Named("http://b")], lambda server: None)
    with pytest.raises(BadInput, match="no such model"):
        within(5, lambda: fleet.each(2, ask, finished))
    assert told == [(0, 10)]
    assert within(5, lambda: fleet.each(3, lambda server, place: 10 * place)) == [0, 10, 20]
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_a_busy_server_that_does_a_piece_now_and_then_does_all(clock):
    asked = []

    def ask(server, place):
        asked.append(place)
        if len(asked) % 2:
            raise ServerAway("busy", BUSY, 1.5)
        return 10 * place

    fleet = Fleet([Named("http://a")], lambda server: None, patience=2.0, at_once=1)
    assert within(5, lambda: fleet.each(3, ask)) == [0, 10, 20]
    assert asked == [0, 0, 1, 1, 2, 2] and clock.slept == [1.5, 1.5, 1.5]
