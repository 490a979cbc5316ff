"""The pipeline: results in order, in bounded memory, and threads that end when they should."""

import threading
import time

import pytest

import fastdiv.pipeline as pipeline_module
from fastdiv.pipeline import Pipeline

PATIENCE_S = 10.0  # what never takes so long unless threads wait for each other
THREADS = [1, 2, 7]


def patiently(work):
    """Call `work` on a thread of its own, so that a deadlock fails instead of hanging."""
    results, errors = [], []

    def run():
        try:
            results.append(work())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "deadlock"
    if errors:
        raise errors[0]
    return results[0]


def collect(pipeline, chunks, threads):
    """Return what is taken, in order."""
    taken = []
    patiently(lambda: pipeline.run(range(chunks), threads, taken.append))
    return taken


def workers():
    return [t for t in threading.enumerate() if t.name.startswith("fastdiv")]


def wait_until(condition, patience_s=PATIENCE_S):
    """Wait for a condition; false if it does not come about."""
    deadline = time.monotonic() + patience_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind():
    assert not workers()
    yield
    assert not workers()


def numbers(chunk):
    for i in range(chunk % 4):  # some chunks are empty
        yield chunk, i


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("chunks", [0, 1, 3, 200])
@pytest.mark.parametrize("budget", [0, 1, 5, 10**9])
def test_items_come_in_the_order_of_the_chunks(threads, chunks, budget):
    pipeline = Pipeline(numbers, lambda item: 1, budget)
    wanted = [item for chunk in range(chunks) for item in numbers(chunk)]
    assert collect(pipeline, chunks, threads) == wanted


@pytest.mark.parametrize("threads", THREADS)
def test_items_are_taken_one_at_a_time(threads):
    lock, taken = threading.Lock(), []

    def take(item):
        assert lock.acquire(blocking=False), "two at a time"
        time.sleep(0.0001)
        taken.append(item)
        lock.release()

    patiently(lambda: Pipeline(numbers, lambda item: 1, 5).run(range(200), threads, take))
    assert taken == [item for chunk in range(200) for item in numbers(chunk)]


def test_others_go_on_while_one_takes():
    made = threading.Event()

    def produce(chunk):
        if chunk == 1:
            made.set()
        yield chunk

    def take(item):
        if item == 0:
            assert made.wait(PATIENCE_S)

    patiently(lambda: Pipeline(produce, lambda item: 1, 100).run(range(2), 2, take))


@pytest.mark.parametrize("threads", THREADS)
def test_a_slow_first_chunk_holds_back_the_others(threads):
    def produce(chunk):
        time.sleep(0.05 if chunk == 0 else 0)
        yield chunk

    assert collect(Pipeline(produce, lambda item: 1, 100), 20, threads) == list(range(20))


def test_chunks_are_worked_on_at_the_same_time():
    together = threading.Barrier(3)

    def produce(chunk):
        together.wait(PATIENCE_S)  # breaks unless three chunks are in work at once
        yield chunk

    assert collect(Pipeline(produce, lambda item: 1, 100), 3, 3) == [0, 1, 2]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("threads", THREADS)
def test_items_larger_than_the_budget_do_not_stop_it(threads, size):
    def produce(chunk):
        yield from ([chunk] * 5)

    found = collect(Pipeline(produce, lambda item: size, 2), 30, threads)
    assert found == [chunk for chunk in range(30) for _ in range(5)]


class Account:
    """Counts items that were made and not yet taken."""

    def __init__(self, items):
        self.items = items  # of each chunk
        self.waiting = self.most = 0
        self.lock = threading.Lock()

    def produce(self, chunk):
        for i in range(self.items):
            yield chunk, i
            with self.lock:  # here the pipeline has accepted the item
                self.waiting += 1
                self.most = max(self.most, self.waiting)

    def take(self, item):
        with self.lock:
            self.waiting -= 1


@pytest.mark.parametrize("threads", THREADS)
def test_what_waits_for_a_slow_chunk_stays_within_the_budget(threads):
    account, release = Account(10), threading.Event()

    def produce(chunk):
        if chunk == 0:
            release.wait(PATIENCE_S)
        yield from account.produce(chunk)

    threading.Timer(0.1, release.set).start()
    patiently(lambda: Pipeline(produce, lambda item: 1, 15).run(range(10), threads, account.take))
    assert account.waiting == 0
    assert account.most <= 15 + threads + 1  # and what is on its way in or out


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("chunks", [1, 4])
def test_what_waits_for_a_slow_consumer_stays_within_the_budget(threads, chunks):
    account, taken, most = Account(200), [], []

    def take(item):
        if not taken:
            wait_until(lambda: account.waiting > 50, 0.1)  # time enough to go too far
            most.append(account.waiting)
        taken.append(item)
        account.take(item)

    pipeline = Pipeline(account.produce, lambda item: 1, 15)
    patiently(lambda: pipeline.run(range(chunks), threads, take))
    assert taken == [(c, i) for c in range(chunks) for i in range(200)]
    assert most[0] <= 15 + threads + 1


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("at", [0, 3, 19])
def test_an_error_comes_after_what_was_made_before_it(threads, at):
    def produce(chunk):
        yield chunk, "first"
        if chunk >= at:  # later chunks fail as well, perhaps earlier in time
            raise ValueError(f"chunk {chunk}")
        yield chunk, "second"

    taken, pipeline = [], Pipeline(produce, lambda item: 1, 100)
    with pytest.raises(ValueError, match=f"^chunk {at}$"):
        patiently(lambda: pipeline.run(range(20), threads, taken.append))
    wanted = [(chunk, which) for chunk in range(at) for which in ("first", "second")]
    assert taken == [*wanted, (at, "first")]


def test_an_error_of_a_later_chunk_waits_for_its_turn():
    failed = threading.Event()

    def produce(chunk):
        if chunk == 1:
            failed.set()
            raise ValueError("chunk 1")
        failed.wait(PATIENCE_S)
        yield from "abc"

    taken, pipeline = [], Pipeline(produce, lambda item: 1, 100)
    with pytest.raises(ValueError, match="chunk 1"):
        patiently(lambda: pipeline.run(range(2), 2, taken.append))
    assert taken == ["a", "b", "c"]


@pytest.mark.parametrize("threads", THREADS)
def test_an_error_without_any_item_does_not_hang(threads):
    def produce(chunk):
        raise ValueError("nothing")
        yield

    with pytest.raises(ValueError, match="nothing"):
        collect(Pipeline(produce, lambda item: 1, 0), 50, threads)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("budget", [0, 3, 10**9])
def test_an_error_of_who_takes_stops_the_workers(threads, budget):
    begun, taken = [], []

    def produce(chunk):
        begun.append(chunk)
        for i in range(50):
            time.sleep(0.001)
            yield chunk, i

    def take(item):
        taken.append(item)
        if len(taken) == 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        patiently(lambda: Pipeline(produce, lambda item: 1, budget).run(range(500), threads, take))
    assert taken == [(0, 0), (0, 1), (0, 2)]
    assert not workers()
    soon = len(begun)
    assert soon < 500
    time.sleep(0.05)
    assert len(begun) == soon


def test_an_interrupt_stops_the_workers(monkeypatch):
    """As Ctrl+C does, which is raised where the main thread waits."""
    begun = threading.Event()

    def produce(chunk):
        begun.set()
        for i in range(10_000):
            time.sleep(0.001)
            yield chunk, i

    def interrupted(self):
        assert begun.wait(PATIENCE_S)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline_module._Run, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Pipeline(produce, lambda item: 1, 5).run(range(10), 2, lambda item: None)
    assert not workers()
