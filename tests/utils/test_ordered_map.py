"""Mapping in threads keeps order, bounds what is in flight and passes errors on."""

import threading
import time

import pytest

from pe_dense.utils.ordered_map import ordered_map, spare_cores


def test_results_come_in_order_from_other_threads():
    def slow(item):
        time.sleep(0.02 * (item % 2 == 0))  # even ones end later
        return item, threading.get_ident()

    results = list(ordered_map(slow, range(8), workers=3, ahead=3))
    assert [item for item, _ in results] == list(range(8))
    assert threading.get_ident() not in {thread for _, thread in results}


def test_no_more_items_than_allowed_are_taken_ahead():
    taken = []
    results = ordered_map(lambda item: item, (taken.append(item) or item for item in range(10)), ahead=2)
    assert next(results) == 0
    assert taken == [0, 1, 2]
    assert next(results) == 1
    assert taken == [0, 1, 2, 3]
    results.close()


def test_calls_overlap_with_the_computation_of_the_next_item():
    first_started, second_taken = threading.Event(), threading.Event()

    def items():
        yield 1
        assert first_started.wait(10)
        second_taken.set()
        yield 2

    def call(item):
        first_started.set()
        return second_taken.wait(10) and item

    assert list(ordered_map(call, items())) == [1, 2]


def test_errors_are_raised_at_their_place_and_end_the_work():
    called = []

    def call(item):
        called.append(item)
        if item == 1:
            raise OSError("no space")
        return item

    results = ordered_map(call, range(100), ahead=1)
    assert next(results) == 0
    with pytest.raises(OSError, match="no space"):
        next(results)
    assert len(called) <= 3


def test_cores_for_writing(monkeypatch):
    for cores, expected in ((1, 1), (2, 1), (3, 2), (64, 4)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert spare_cores(4) == expected
