"""A real daemon, from the binary that the wheel carries."""

import itertools
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_numbers = itertools.count()


class Daemon:
    """`tranship serve` on sockets of its own; killed at the end of the test."""

    def __init__(self, directory: Path, *options: str, capacity: str = "64MiB"):
        self.address = f"unix://{directory}/d.sock"
        self._command = [
            os.environ.get("TRANSHIP_BINARY") or str(Path(sys.executable).parent / "tranship"), "serve",
            "--listen", self.address, "--admin", f"unix://{directory}/a.sock", "--metrics", "off",
            "--capacity", capacity, *options,
        ]
        self._process = None
        self.start()

    def start(self):
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self._process.stdout], [], [], 1)
            line = self._process.stdout.readline() if ready else ""
            if line.startswith("listening"):
                return
            assert self._process.poll() is None, self._process.stderr.read()
        raise AssertionError("the daemon was not there after 30 s")

    def kill(self):
        """As a crash would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def pause(self):
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture
def daemon():
    directory = Path(f"/tmp/tranship-python-{os.getpid()}-{next(_numbers)}")
    directory.mkdir()
    daemon = Daemon(directory)
    yield daemon
    daemon.kill()
    shutil.rmtree(directory)
