"""`vllm serve` over HTTP with TranshipConnector: what a user sees of it from outside."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import fresh
import pytest

PROMPT = [3 + i * 7 % 500 for i in range(600)]
CACHED = 576
TRANSFER = {
    "kv_connector": "TranshipConnector",
    "kv_connector_module_path": "tranship.vllm",
    "kv_role": "kv_both",
    "kv_load_failure_policy": "recompute",
}


class Server:
    """`vllm serve` as the book types it, in a fresh process."""

    def __init__(self, model, log, *options, **transfer):
        self.port, self.log = fresh.free_port(), log
        command = [
            str(Path(sys.executable).parent / "vllm"), "serve", str(model), "--host", "127.0.0.1", "--port",
            str(self.port), "--dtype", "bfloat16", "--max-model-len", "2048", "--max-num-seqs", "4",
            "--block-size", "32", "--enforce-eager", "--enable-prompt-tokens-details",
            "--served-model-name", "tiny", *options,
        ]  # fmt: skip
        if transfer:
            command += ["--kv-transfer-config", json.dumps({**TRANSFER, "kv_connector_extra_config": transfer})]
        environment = {
            **os.environ,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_SERVER_DEV_MODE": "1",
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        with open(log, "w") as talk:
            self.process = subprocess.Popen(
                command, stdout=talk, stderr=talk, env=environment, start_new_session=True
            )
        deadline = time.monotonic() + 240
        while True:
            try:
                self.get("/health")
                return
            except OSError:
                told = Path(log).read_text()[-3000:]
                assert self.process.poll() is None, f"it ended:\n{told}"
                assert time.monotonic() < deadline, f"not ready within 240 s:\n{told}"
                # Not a wait for time to pass: the process ends sooner or answers.
                try:
                    self.process.wait(0.5)
                except subprocess.TimeoutExpired:
                    pass

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return answer.read().decode()

    def post(self, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", json.dumps(body or {}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read().decode()

    def complete(self, prompt, count=8):
        """The text, and how many tokens of the prompt were cached."""
        body = {"model": "tiny", "prompt": prompt, "max_tokens": count, "temperature": 0, "ignore_eos": True}
        answer = json.loads(self.post("/v1/completions", body))
        details = answer["usage"].get("prompt_tokens_details") or {}
        return answer["choices"][0]["text"], details.get("cached_tokens") or 0

    def metric(self, name, **labels):
        """The sum of a counter's values."""
        total = 0.0
        for line in self.get("/metrics").splitlines():
            found = re.fullmatch(r"([\w:]+)\{(.*)\} (\S+)", line)
            if found and found[1] == name and all(f'{key}="{value}"' in found[2] for key, value in labels.items()):
                total += float(found[3])
        return total

    def close(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(10)


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(model, *options, **transfer):
        servers.append(Server(model, tmp_path / f"serve-{len(servers)}.log", *options, **transfer))
        return servers[-1]

    yield start
    for one in servers:
        one.close()


class Events:
    """vLLM's KV events, as a router takes them."""

    def __init__(self, endpoint):
        import zmq

        self.socket = zmq.Context.instance().socket(zmq.SUB)
        self.socket.connect(endpoint)
        self.socket.setsockopt_string(zmq.SUBSCRIBE, "")

    def until(self, wanted, seconds):
        """Events until one is as wanted."""
        import msgspec

        found, deadline = [], time.monotonic() + seconds
        while not any(map(wanted, found)):
            left = deadline - time.monotonic()
            assert left > 0 and self.socket.poll(left * 1e3), f"not among {found}"
            _, events, *_ = msgspec.msgpack.decode(self.socket.recv_multipart()[2])
            found += events
        return found


def test_a_server_over_http(daemon, serve, models):
    plain = serve(models[0])
    text, _ = plain.complete(PROMPT)
    plain.close()

    port = fresh.free_port()
    events = json.dumps({
        "enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://*:{port}", "topic": "",
    })  # fmt: skip
    first = serve(models[0], "--kv-events-config", events, address=daemon.address)
    heard = Events(f"tcp://127.0.0.1:{port}")
    # A subscription takes a moment to arrive: until an event comes, there is something new to tell of.
    for number in range(100):
        first.complete([4 + number] * 64, 1)
        if heard.socket.poll(100):
            break
    assert first.complete(PROMPT) == (text, 0)

    def ours(event):
        return event["type"] == "BlockStored" and event.get("ownership") == "tranship"

    last = PROMPT[:CACHED][-32:]
    told = heard.until(lambda event: ours(event) and event["token_ids"][-32:] == last, 60)
    of_engine = {one for event in told if event["type"] == "BlockStored" and not ours(event) for one in event["block_hashes"]}
    of_daemon = {one for event in told if ours(event) for one in event["block_hashes"]}
    assert len(of_daemon) >= CACHED // 32
    assert of_daemon <= of_engine, "both tell of a block by the same hash"
    assert first.metric("vllm:tranship_blocks_total", operation="store", result="stored") >= CACHED // 32
    assert first.metric("vllm:tranship_bytes_total", operation="store") > 0
    first.close()

    second = serve(models[0], address=daemon.address)
    assert second.complete(PROMPT) == (text, CACHED)
    assert second.metric("vllm:tranship_blocks_total", operation="load", result="ready") == CACHED // 32
    assert second.metric("vllm:tranship_blocks_total", operation="lookup", result="found") == CACHED // 32
    assert second.metric("vllm:tranship_operation_time_seconds_count", operation="load") >= 1

    # Requests of several users at once, streaming or not, while the daemon goes and comes back.
    daemon.kill()
    answers = [None] * 6
    def ask(index):
        answers[index] = second.complete(PROMPT[: 300 + 32 * index] + [7] * 20)
    threads = [threading.Thread(target=ask, args=[index]) for index in range(len(answers))]
    for thread in threads:
        thread.start()
    daemon.start()
    for thread in threads:
        thread.join(120)
    assert all(answer is not None for answer in answers)
    assert second.complete(PROMPT)[0] == text

    # A change of weights: vLLM's own reset, with the connector's.
    second.post("/reset_prefix_cache?reset_running_requests=false&reset_external=true")
    assert second.complete(PROMPT) == (text, 0)
