"""Commands that end as no command may, to see that this is noticed; and one that behaves."""

import ctypes
import os
import sys
import tempfile
import threading
import time
from pathlib import Path


def crash():
    ctypes.string_at(0)


def abort():
    os.abort()


def hang():
    time.sleep(60)


def spin():
    while True:
        pass


def leave_a_thread_waiting():
    threading.Thread(target=threading.Event().wait).start()
    print("a result")


def raise_an_error():
    raise KeyError("label")


def end_without_a_word():
    os._exit(0)


def say_nothing():
    sys.exit(0)


def fail_without_a_word():
    sys.exit(2)


def say_too_much():
    print("warning: a.parquet looks odd\nerror: a.parquet is cut", file=sys.stderr)
    sys.exit(2)


def forget_the_file():
    print("error: out of memory", file=sys.stderr)
    sys.exit(2)


def fail_after_a_result():
    print("a result")
    print("error: a.parquet is cut", file=sys.stderr)
    sys.exit(2)


def leave_a_temporary_file():
    tempfile.mkstemp()
    print("a result")


def leave_half_a_run():
    os.mkdir("run")
    print("error: a.parquet is cut", file=sys.stderr)
    sys.exit(2)


def take_memory():
    try:
        bytearray(2 << 30)
    except MemoryError:
        print("error: out of memory for a.parquet", file=sys.stderr)
        sys.exit(2)


def fill_memory():
    print(len(b"x" * (200 << 20)), "is a result")


def behave():
    assert Path("a.parquet").read_bytes() == b"PAR1"
    assert tempfile.gettempdir() == str(Path("tmp").absolute())
    assert os.listdir("tmp") == []
    print("error: a.parquet is cut", file=sys.stderr)
    sys.exit(2)
