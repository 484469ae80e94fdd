"""One vLLM engine in this process, told what to do by lines of JSON on standard input.

Answers are lines of JSON that begin with `>`; everything else is the engine's own talk.
"""

import ctypes
import json
import os
import sys

os.environ.update(
    VLLM_TARGET_DEVICE="cpu",
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    HF_HUB_OFFLINE="1",
    CUDA_VISIBLE_DEVICES="",
)

STORED = []


def watch():
    """Remembers the keys that are stored, so that a test can damage a block."""
    from tranship.vllm.worker import Worker

    store = Worker.store

    def watched(self, step):
        STORED.extend((move.group, move.keys) for move in step.stores)
        return store(self, step)

    Worker.store = watched


def damage(index):
    """Overwrites bytes of a stored block, as a stray write of another process would."""
    from vllm.distributed.kv_transfer import get_kv_transfer_group

    worker = get_kv_transfer_group()._worker
    group, keys = STORED[0]
    with worker.cache.with_identity(worker.identities[group]).lease(keys[index : index + 1]) as lease:
        at, size = lease.view(0)
        ctypes.memset(at + size // 2, 0xA5, 64)


def forget(llm, **how):
    """Empties the prefix cache; pages that stores still read are waited for, as a server's idle loop would."""
    for _ in range(10_000):
        if llm.reset_prefix_cache(**how):
            return True
        llm.llm_engine.engine_core.get_output()
    return False


def main():
    options = json.loads(sys.stdin.readline())
    if options.get("kv_transfer_config", {}).get("kv_connector") == "TranshipConnector":
        watch()
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    defaults = {
        "enforce_eager": True,
        "enable_prefix_caching": True,
        "distributed_executor_backend": "uni",
        "max_model_len": 2048,
        "max_num_batched_tokens": 2048,
        "disable_log_stats": False,
    }
    llm = LLM(**{**defaults, **options})
    adapters = {}
    print(">", json.dumps("ready"), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        if name == "generate":
            prompts, count, adapter = arguments
            lora = None
            if adapter is not None:
                number = adapters.setdefault(adapter, len(adapters) + 1)
                # All have one name: it is their weights that tell them apart.
                lora = LoRARequest("adapter", number, adapter)
            sampling = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
            outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False, lora_request=lora)
            answer = [[list(o.outputs[0].token_ids), o.num_cached_tokens] for o in outputs]
        elif name == "transfer":
            prompt, count, parameters = arguments
            more = {"kv_transfer_params": parameters}
            sampling = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, extra_args=more)
            (output,) = llm.generate([{"prompt_token_ids": prompt}], sampling, use_tqdm=False)
            answer = [list(output.outputs[0].token_ids), output.kv_transfer_params]
        elif name in ("forget", "reset"):
            answer = forget(llm, reset_connector=name == "reset")
        elif name == "metrics":
            # Counters of one name have different labels; here their sum is enough.
            answer = {}
            for metric in llm.get_metrics():
                if hasattr(metric, "value"):
                    key = "/".join([metric.name, *(metric.labels.get(label, "") for label in ("operation", "result"))])
                    answer[key.rstrip("/")] = answer.get(key.rstrip("/"), 0) + metric.value
        elif name == "damage":
            answer = damage(*arguments)
        else:
            raise ValueError(name)
        print(">", json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
