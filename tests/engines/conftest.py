"""Engines in processes of their own, and the daemon of the package's tests."""

import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "python"))
from conftest_daemon import Daemon, daemon  # noqa: E402, F401

HERE = Path(__file__).parent


class Engine:
    """A vLLM engine, in a fresh process."""

    def __init__(self, model, *, log, extra=None, environment=None, **options):
        options = {"model": str(model), "dtype": "bfloat16", "block_size": 32, "max_num_seqs": 8, **options}
        if extra is not None:
            options["kv_transfer_config"] = {
                "kv_connector": "TranshipConnector",
                "kv_connector_module_path": "tranship.vllm",
                "kv_role": "kv_both",
                "kv_load_failure_policy": "recompute",
                "kv_connector_extra_config": extra,
            }
        self.log = log
        self._errors = open(log, "w")
        self._process = subprocess.Popen(
            [sys.executable, HERE / "engine.py"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, bufsize=1,
            start_new_session=True, env={**os.environ, **(environment or {})},
        )
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._ask(options, 300) == "ready"

    def _read(self):
        with open(self.log.with_suffix(".out"), "w") as talk:
            for line in self._process.stdout:
                talk.write(line)
                talk.flush()
                if line.startswith(">"):
                    self._lines.put(line)
        self._lines.put(None)

    def _ask(self, what, timeout=120):
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"no answer within {timeout} s; see {self.log}") from None
        if line is None:
            tail = "".join(open(self.log).readlines()[-30:])
            raise AssertionError(f"the engine ended with {self._process.wait(10)}:\n{tail}")
        return json.loads(line[1:])

    def talk(self):
        """All it has said."""
        return self.log.read_text() + self.log.with_suffix(".out").read_text()

    def generate(self, prompts, count=8, adapter=None):
        """For each prompt its tokens, and how many tokens of it were cached; with the LoRA adapter of a folder."""
        return self._ask(["generate", prompts, count, adapter and str(adapter)])

    def metrics(self):
        """vLLM's counters by name, operation and result."""
        return self._ask(["metrics"])

    def transfer(self, prompt, count, parameters):
        """The tokens of one prompt, of which other engines have a part, and what those need to have theirs."""
        return self._ask(["transfer", prompt, count, parameters])

    def kill(self):
        os.killpg(self._process.pid, 9)
        self._process.wait(10)

    def forget(self):
        """Empties the engine's own prefix cache."""
        assert self._ask(["forget"])

    def reset(self):
        """The same, and the connector's."""
        assert self._ask(["reset"])

    def damage(self, index):
        self._ask(["damage", index])

    def close(self):
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait(10)
        self._errors.close()


@pytest.fixture
def engine(tmp_path):
    """Starts engines; they end with the test."""
    engines, numbers = [], itertools.count()

    def start(model, **options):
        engines.append(Engine(model, log=tmp_path / f"engine-{next(numbers)}.log", **options))
        return engines[-1]

    yield start
    for one in engines:
        one.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Two models that differ in nothing but their weights."""
    directory = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        where = directory / str(seed) / "tiny"
        subprocess.run([sys.executable, HERE / "tiny_model.py", where, str(seed)], check=True)
    return [directory / str(seed) / "tiny" for seed in (0, 1)]
