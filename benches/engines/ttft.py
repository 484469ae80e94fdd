#!/usr/bin/env python3
"""Time to first token of a long prompt with vLLM on CPUs: computed, or loaded by one of several connectors.

    benches/engines/run [--prefix 4096] [--prompts 3] [--rounds 5] [--systems computed,tranship,...] [--json]

One table: for each system the prompts are computed (and stored) by one process and asked of another, fresh one, except
where the store lives in the engine's own memory. `overhead` asks engines without and with Tranship in turns for prompts
nobody has seen. Times are medians; every token is compared with the one that was computed without a connector.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "engines"), str(ROOT / "tests" / "python")]

import fresh  # noqa: E402
import lmcache_server  # noqa: E402
from conftest_daemon import Daemon  # noqa: E402

VOCABULARY = 500
# Of the measured model (28 layers, 8 heads of 128, keys and values, two bytes each).
BYTES_PER_TOKEN = 28 * 8 * 128 * 2 * 2
_kept = {}


# What the engines' processes are told to do.


def start(model, transfer, prefix):
    if transfer is not None and "LMCache" in transfer["kv_connector"]:
        lmcache_server.mend()
    from vllm import LLM

    _kept["llm"] = LLM(
        model=model, dtype="bfloat16", block_size=32, enforce_eager=True, enable_prefix_caching=True,
        distributed_executor_backend="uni", max_model_len=prefix + 512, max_num_batched_tokens=prefix + 512,
        max_num_seqs=8, kv_transfer_config=transfer,
    )  # fmt: skip


def ask(prompts, count=1):
    """Seconds for all of them at once, with their tokens and how many of each were cached."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
    begin = time.perf_counter()
    answers = _kept["llm"].generate([{"prompt_token_ids": one} for one in prompts], sampling, use_tqdm=False)
    seconds = time.perf_counter() - begin
    return [seconds, [list(one.outputs[0].token_ids) for one in answers], [one.num_cached_tokens for one in answers]]


def forget():
    """Empties the engine's own prefix cache, once nothing is read from its pages any more."""
    llm = _kept["llm"]
    for _ in range(100_000):
        if llm.reset_prefix_cache():
            return True
        llm.llm_engine.engine_core.get_output()
    return False


def stop():
    if "llm" in _kept:
        _kept["llm"].llm_engine.engine_core.shutdown()


# What asks them.


def engine(options, log, transfer=None):
    gibibytes = -(-(options.prefix + 512) * BYTES_PER_TOKEN * (options.prompts + 1) >> 30)
    process = fresh.Process(
        __file__, log, VLLM_TARGET_DEVICE="cpu", VLLM_CPU_KVCACHE_SPACE=str(max(1, gibibytes)),
        VLLM_CPU_OMP_THREADS_BIND="nobind", VLLM_ENABLE_V1_MULTIPROCESSING="0",
    )  # fmt: skip
    process.call("start", options.model, transfer, options.prefix, within=600)
    process.call("ask", [[3, 4, 5] * 20], within=600)
    return process


def prompt(options, seed):
    choose = random.Random(seed)
    return [choose.randrange(3, VOCABULARY) for _ in range(options.prefix + 16)]


def connector(name, module=None, **extra):
    transfer = {"kv_connector": name, "kv_role": "kv_both", "kv_connector_extra_config": extra}
    if module:
        transfer.update(kv_connector_module_path=module, kv_load_failure_policy="recompute")
    return transfer


@contextlib.contextmanager
def system(name, options, where, capacity):
    """Its transfer configuration, and whether a fresh process can load what another stored."""
    if name == "lmcache":
        server = lmcache_server.Server(where / "lmcache-server.log", -(-capacity >> 30))
        try:
            yield server.transfer(), True
        finally:
            server.close()
        return
    directory = where / f"daemon-{name.replace(' ', '-')}"
    directory.mkdir()
    daemon = Daemon(directory, capacity=str(capacity))
    try:
        yield configuration(name, options, where, daemon)
    finally:
        daemon.kill()


def configuration(name, options, where, daemon):
    size = 2 * (options.prompts + 1) * (options.prefix + 512) * BYTES_PER_TOKEN
    if name == "tranship":
        return connector("TranshipConnector", "tranship.vllm", address=daemon.address), True
    if name == "tranship sync":
        return connector("TranshipConnector", "tranship.vllm", address=daemon.address, load="sync"), True
    if name == "example":
        return connector("ExampleConnector", shared_storage_path=str(where / "example")), True
    if name == "offload":
        return connector(
            "OffloadingConnector", spec_name="CpuTieringSpec", spec_module_path="vllm_cpu_offload",
            cpu_bytes_to_use=size, secondary_tiers=[],
        ), False  # fmt: skip
    raise SystemExit(f"no system is called {name!r}; there are {', '.join(SYSTEMS)}")


SYSTEMS = {
    "computed": "vLLM, no connector",
    "tranship": "Tranship, asynchronous loads",
    "tranship sync": "Tranship, loads that are waited for",
    "example": "vLLM's ExampleConnector (files)",
    "lmcache": "LMCacheMPConnector and LMCache's server, chunks in its shared memory",
    "offload": "vLLM's OffloadingConnector (own host memory, a test's worker in place of CUDA's)",
}


def loads(name, options, where, capacity, prompts, reference):
    with system(name, options, where, capacity) as (transfer, anew):
        return loaded(name, options, where, transfer, anew, prompts, reference)


def loaded(name, options, where, transfer, anew, prompts, reference):
    log = where / name.replace(" ", "-")
    # What is stored by one is not there for the next.
    with engine(options, f"{log}-store.log", transfer) as process:
        for one in prompts:
            process.call("ask", [one], within=600)
        assert process.call("forget"), "pages are still read"
        if not anew:
            return asked(process, options, prompts, reference)
    with engine(options, f"{log}-load.log", transfer) as process:
        return asked(process, options, prompts, reference)


def asked(process, options, prompts, reference):
    seconds, same, cached = [], True, []
    for _ in range(options.rounds):
        for one, expected in zip(prompts, reference):
            took, tokens, found = process.call("ask", [one], within=600)
            assert process.call("forget"), "pages are still read"
            seconds.append(took)
            same = same and tokens == expected
            cached += found
    return {"seconds": seconds, "same": same, "cached": statistics.median(cached)}


def overhead(options, where, transfer, seeds):
    """Engines without and with Tranship in turns, when nothing hits: prompts of the full length, and eight short requests
    at once with 64 tokens each."""
    times = {"prefill": ([], []), "decode": ([], [])}
    with engine(options, where / "without.log") as without, engine(options, where / "with.log", transfer) as with_:
        sides = (without, with_)
        for turn in range(options.rounds):
            # Who comes first changes.
            for side in (0, 1) if turn % 2 == 0 else (1, 0):
                seconds, _, cached = sides[side].call("ask", [prompt(options, next(seeds))], within=600)
                assert cached == [0]
                times["prefill"][side].append(seconds)
                few = [prompt(options, next(seeds))[:100] for _ in range(8)]
                times["decode"][side].append(sides[side].call("ask", few, 64, within=600)[0])
                assert sides[side].call("forget")
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None, help="a folder (by default a random Qwen3 of 0.44 billion is made)")
    parser.add_argument("--prefix", type=int, default=4096, help="tokens of a prompt that can be loaded")
    parser.add_argument("--prompts", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--no-overhead", action="store_true")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each row")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tranship-bench-", dir="/var/tmp") as directory:
        run(options, Path(directory))


def run(options, where):
    if options.model is None:
        options.model = str(where / "qwen3")
        subprocess.run(
            [sys.executable, ROOT / "tests" / "engines" / "tiny_model.py", options.model, "0", "qwen3-bench"],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    prompts = [prompt(options, seed) for seed in range(options.prompts)]
    seeds = iter(range(1000, 1_000_000))
    rows = []
    with engine(options, where / "computed.log") as plain:
        reference, seconds = [], []
        for _ in range(options.rounds):
            for one in prompts:
                took, tokens, _ = plain.call("ask", [one], within=600)
                seconds.append(took)
                reference.append(tokens)
                assert plain.call("forget")
    rows.append(row(options, "computed", {"seconds": seconds, "same": True, "cached": 0}))
    tell(options, rows[-1], rows[0])
    wanted = [name.strip() for name in options.systems.split(",")]
    capacity = 4 * (options.prompts + 1) * (options.prefix + 512) * BYTES_PER_TOKEN
    for name in [name for name in wanted if name != "computed"]:
        try:
            found = loads(name, options, where, capacity, prompts, reference[: len(prompts)])
        except AssertionError as error:
            print(f"skipped: {name}: {str(error)[-600:]}", flush=True)
            continue
        tell(options, row(options, name, found), rows[0])
    if options.no_overhead:
        return
    (where / "overhead").mkdir()
    with system("tranship", options, where / "overhead", capacity) as (transfer, _):
        times = overhead(options, where, transfer, seeds)
    for kind, (without, with_) in times.items():
        line = {
            "bench": "engines/overhead", "what": kind, "rounds": options.rounds,
            "without_ms": ms(without), "with_ms": ms(with_),
            "ratio": round(statistics.median(b / a for a, b in zip(without, with_)), 4),
        }  # fmt: skip
        if options.json:
            print(json.dumps(line), flush=True)
        else:
            print(
                f"nothing hits, {kind}: {line['without_ms']:,} ms without, {line['with_ms']:,} with, ratio {line['ratio']}",
                flush=True,
            )


def ms(seconds):
    return round(statistics.median(seconds) * 1e3, 1)


def row(options, name, found):
    return {
        "bench": "engines/ttft", "system": name, "prefix": options.prefix, "asked": len(found["seconds"]),
        "ttft_ms": ms(found["seconds"]), "min_ms": round(min(found["seconds"]) * 1e3, 1),
        "max_ms": round(max(found["seconds"]) * 1e3, 1), "cached_tokens": found["cached"],
        "kv_bytes": int(found["cached"]) * BYTES_PER_TOKEN, "same_tokens": found["same"],
    }  # fmt: skip


def tell(options, one, computed):
    one["speedup"] = round(computed["ttft_ms"] / one["ttft_ms"], 2)
    if options.json:
        print(json.dumps(one), flush=True)
        return
    told = "" if one["same_tokens"] else "; TOKENS DIFFER"
    print(
        f"{one['system']:14} {one['ttft_ms']:>10,} ms ({one['min_ms']:,} to {one['max_ms']:,}), {one['cached_tokens']:.0f} "
        f"tokens cached, {one['speedup']} × as fast as computed{told}",
        flush=True,
    )


if __name__ == "__main__":
    # Engines' processes run this file too, without arguments.
    if len(sys.argv) == 1 and not sys.stdin.isatty() and "VLLM_TARGET_DEVICE" in os.environ:
        fresh.answer(globals())
    else:
        main()
