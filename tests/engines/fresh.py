"""Functions of a test file called in processes of their own.

A test file ends with `if __name__ == "__main__": fresh.answer(globals())`; its tests call
`fresh.call(__file__, "name", …)` or keep a `fresh.Process` to call several. Arguments and answers are JSON.
"""

import json
import os
import pickle
import select
import socket
import subprocess
import sys
import time

# Before every answer: engines print much of their own.
_MARK = "\x1e>"
_HERE = os.path.dirname(os.path.abspath(__file__))
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


class Lines:
    """Lines of a pipe, each waited for no longer than until a deadline: a buffered reader would hide from `select`
    what it has read already."""

    def __init__(self, stream):
        self._stream, self._rest = stream, b""

    def next(self, deadline):
        """The next line; None when there is none by then, and an empty one at the end."""
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._stream], [], [], left)[0]:
                return None
            more = os.read(self._stream.fileno(), 1 << 16)
            if not more:
                return ""
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace") + "\n"


class Process:
    """A fresh interpreter that runs functions of a file, one after the other, with what they leave in memory."""

    def __init__(self, file, log, **environment):
        self.log = str(log)
        self._errors = open(log, "w")
        path = os.pathsep.join(filter(None, [_HERE, os.environ.get("PYTHONPATH")]))
        # Programs such as ninja lie beside the interpreter.
        programs = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        self._process = subprocess.Popen(
            [sys.executable, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path, "PATH": programs, **environment},
        )

        self._lines = Lines(self._process.stdout)

    def call(self, function, *arguments, within=240, **named):
        self._process.stdin.write(json.dumps([function, arguments, named]).encode() + b"\n")
        deadline = time.monotonic() + within
        while (line := self._lines.next(deadline)) is not None:
            if line.startswith(_MARK):
                return json.loads(line[len(_MARK) :])
            if not line:
                raise AssertionError(f"{function} ended with {self._process.wait(10)}:\n{self.told()[-4000:]}")
            self._errors.write(line)
            self._errors.flush()
        raise AssertionError(f"{function} gave no answer within {within} s; see {self.log}")

    def told(self):
        """What the process printed."""
        with open(self.log) as log:
            return log.read()

    def close(self):
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            pass
        try:
            # Engines have processes of their own.
            os.killpg(self._process.pid, 9)
        except ProcessLookupError:
            pass
        self._process.wait(10)
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def answer(functions):
    """Answers calls until the input ends; then stops what runs, by the function `stop` if there is one."""
    for line in sys.stdin:
        name, arguments, named = json.loads(line)
        print(_MARK + json.dumps(functions[name](*arguments, **named)), flush=True)
    # Engines leave shared memory behind when they are killed.
    functions.get("stop", lambda: None)()


def written(path):
    """What another process has pickled into a file so far."""
    found = []
    if os.path.exists(path):
        with open(path, "rb") as file:
            while True:
                try:
                    found.append(pickle.load(file))
                except EOFError:
                    break
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def damage(cache, keys, index):
    """Overwrites bytes of a stored block, as a stray write of another process would."""
    import ctypes

    with cache.lease(keys[index : index + 1]) as lease:
        at, size = lease.view(0)
        ctypes.memset(at + size // 2, 0xA5, 64)
