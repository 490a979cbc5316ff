"""Memory that is used again: only when nobody looks at it any more."""

import threading

import numpy as np
import pyarrow as pa

from fastdiv.sources.rooms import KEPT_BYTES, LARGER, Rooms


def place(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_once_no_view_is_left():
    rooms = Rooms()
    first = rooms.take(10_000)
    assert first.shape == (10_000,)
    where = place(first)
    view = first[100:200][::2]
    del first
    assert place(rooms.take(10_000)) != where
    del view
    assert place(rooms.take(9_000)) == where


def test_views_of_every_kind_keep_memory_from_being_used_again():
    for look in (
        lambda x: pa.py_buffer(x[8:80]),
        lambda x: pa.Array.from_buffers(pa.int64(), 10, [None, pa.py_buffer(x)]),
        lambda x: np.ndarray((5, 2), np.float32, x[4:]),
        lambda x: memoryview(x)[3:],
        lambda x: x[:16].view(np.int64),
        lambda x: np.frombuffer(x, np.uint16, 4),
    ):
        rooms = Rooms()
        room = rooms.take(4096)
        where, seen = place(room), look(room)
        del room
        assert place(rooms.take(4096)) != where
        del seen
        assert place(rooms.take(4096)) == where


def test_much_larger_memory_is_not_taken_for_little():
    rooms = Rooms()
    where = place(rooms.take(1 << 20))
    assert place(rooms.take((1 << 20) // LARGER)) == where
    assert place(rooms.take((1 << 20) // LARGER - 1)) != where


def test_no_more_is_kept_than_some():
    rooms = Rooms()
    held = [rooms.take(KEPT_BYTES // 8) for _ in range(20)]
    assert len({place(x) for x in held}) == 20
    assert rooms._bytes() <= KEPT_BYTES
    del held
    rooms.take(KEPT_BYTES)  # then all others go
    assert rooms._bytes() == KEPT_BYTES
    assert len(rooms.take(KEPT_BYTES + 1)) == KEPT_BYTES + 1
    assert rooms._bytes() <= KEPT_BYTES


def test_no_room_for_nothing():
    assert len(Rooms().take(0)) == 0


def test_each_thread_has_its_own():
    rooms, places = Rooms(), []
    where = place(rooms.take(5000))
    thread = threading.Thread(target=lambda: places.append(place(rooms.take(5000))))
    thread.start()
    thread.join()
    assert places != [where]
    assert place(rooms.take(5000)) == where
