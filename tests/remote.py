"""File systems for tests: one that records what is read of it, and breaks as it is told."""

import threading
import time
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.fs as pafs


class Reads:
    """What was read of the files of a folder, and what shall go wrong."""

    def __init__(self, latency=0.0):
        self.latency = latency
        self.ranges = []  # (path, start, stop)
        self.opened = []
        self.listed = []
        self.running = self.most_running = 0
        self.outstanding = self.most_outstanding = 0
        self.before = lambda path, start, stop: None
        self._lock = threading.Lock()

    @contextmanager
    def one(self, path, start, stop):
        with self._lock:
            self.ranges.append((path, start, stop))
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        try:
            time.sleep(self.latency)
            self.before(path, start, stop)
            yield
        finally:
            with self._lock:
                self.running -= 1

    def of(self, path):
        return sorted((start, stop) for p, start, stop in self.ranges if p.endswith(path))


class Recording(pafs.FileSystemHandler):
    """A folder of this machine as a file system that is not one of this machine."""

    def __init__(self, folder, reads):
        self.inner = pafs.SubTreeFileSystem(str(folder), pafs.LocalFileSystem())
        self.reads = reads

    def get_type_name(self):
        return "recorded"

    def normalize_path(self, path):
        return path

    def get_file_info(self, paths):
        return [self.inner.get_file_info(path) for path in paths]

    def get_file_info_selector(self, selector):
        self.reads.listed.append((selector.base_dir, selector.recursive))
        return self.inner.get_file_info(selector)

    def open_input_file(self, path):
        self.reads.opened.append(path)
        return pa.PythonFile(Recorded(path, self.inner.open_input_file(path), self.reads), "r")

    open_input_stream = open_input_file

    def _no(self, *_):
        raise AssertionError("nothing is written")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _no
    delete_file = move = copy_file = open_output_stream = open_append_stream = _no


class Recorded:
    """A file whose reads are recorded."""

    closed = False

    def __init__(self, path, file, reads):
        self.path, self.file, self.reads = path, file, reads

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        self.file.seek(offset, whence)

    def tell(self):
        return self.file.tell()

    def close(self):
        self.file.close()

    def read(self, size=None):
        start = self.file.tell()
        with self.reads.one(self.path, start, start + size):
            return self.file.read(size)


def recorded(folder, latency=0.0):
    """Return a file system over a folder, and what is read of it."""
    reads = Reads(latency)
    return pafs.PyFileSystem(Recording(folder, reads)), reads
