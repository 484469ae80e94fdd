"""LMCache's server in a process of its own, and vLLM beside it on CPUs."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import fresh


class Server:
    """`lmcache server` for engines of this machine, which copy to and from its shared memory themselves."""

    def __init__(self, log, gibibytes, *options):
        self.port, http = fresh.free_port(), fresh.free_port()
        self._log = open(log, "w")
        self._process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "lmcache"), "server", "--l1-size-gb", str(gibibytes), "--eviction-policy",
                "LRU", "--supported-transfer-mode", "engine_driven", "--chunk-size", "256", "--port", str(self.port),
                "--http-port", str(http), *options,
            ],
            stdout=self._log, stderr=self._log, start_new_session=True, env={**os.environ, **fresh.ENVIRONMENT},
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{http}/", timeout=10)
                return
            except urllib.error.HTTPError:
                return
            except OSError:
                assert time.monotonic() < deadline, f"LMCache's server is not ready; see {log}"
            try:
                code = self._process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"LMCache's server ended with {code}; see {log}")

    def transfer(self):
        """What vLLM is to be told."""
        extra = {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": self.port}
        return {"kv_connector": "LMCacheMPConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}

    def close(self):
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        self._log.close()


def adapter(**params):
    """The option that puts Tranship below."""
    return "--l2-adapter", json.dumps({
        "type": "plugin", "module_path": "tranship.lmcache", "class_name": "TranshipL2Adapter", "adapter_params": params,
    })  # fmt: skip


def mend():
    """vLLM 0.32 looks into all modules for kernels to replace on CPUs, and trips over one that LMCache imports."""
    import builtins

    from vllm.triton_utils import dispatcher

    def looked_into(value):
        found = builtins.vars(value)
        return found if isinstance(found, dict) or type(found).__name__ == "mappingproxy" else {}

    dispatcher.vars = looked_into
