"""vLLM's own NixlConnector over libplugin_TRANSHIP.so: one engine prefills, another decodes, outputs compared."""

import json
import os
import socket

import pytest
from test_vllm import PROMPT, prompts

pytest.importorskip("nixl", reason="NIXL is not installed in this environment")
if not os.environ.get("NIXL_PLUGIN_DIR"):
    pytest.skip("NIXL_PLUGIN_DIR is not set: tests/engines/run nixl builds the plug-in", allow_module_level=True)

# One block of the tiny model: keys and values of 4 layers, 32 tokens, 2 heads of 64 in bf16.
BLOCK_BYTES = 4 * 2 * 32 * 2 * 64 * 2


def blocks(prompt):
    return -(-len(prompt) // 32)


def connected(engine, models, role, trace, **environment):
    """An engine of one side. The port is free now, and asked for at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return engine(
        models[0],
        environment={
            "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
            "VLLM_NIXL_SIDE_CHANNEL_PORT": str(port),
            "TRANSHIP_NIXL_TRACE": str(trace),
            **environment,
        },
        kv_transfer_config={
            "kv_connector": "NixlConnector",
            "kv_role": role,
            "kv_buffer_device": "cpu",
            "kv_load_failure_policy": "recompute",
            "kv_connector_extra_config": {"backends": ["TRANSHIP"]},
        },
    )


def traced(trace):
    return [json.loads(line) for line in trace.read_text().splitlines()]


def test_one_engine_decodes_what_another_prefilled(engine, models, tmp_path):
    many = [PROMPT, *prompts(20)]
    plain = engine(models[0])
    references = [tokens for tokens, _ in plain.generate(many, 16)]
    plain.close()

    trace = tmp_path / "trace.jsonl"
    producer = connected(engine, models, "kv_producer", trace)
    consumer = connected(engine, models, "kv_consumer", trace, TRANSHIP_NIXL_DEADLINE_MS="3000")
    for prompt, reference in zip(many, references):
        before = len(traced(trace))
        _, parameters = producer.transfer(prompt, 1, {"do_remote_decode": True, "do_remote_prefill": False})
        assert parameters["do_remote_prefill"]
        tokens, _ = consumer.transfer(prompt, 16, parameters)
        assert tokens == reference
        # Its bytes came through the plug-in: those blocks that the engine had not kept of an earlier prompt.
        lines = traced(trace)[before:]
        assert lines and all((line["op"], line["status"]) == ("read", 0) for line in lines)
        moved = sum(line["bytes"] for line in lines)
        assert moved % BLOCK_BYTES == 0 and 0 < moved <= blocks(prompt) * BLOCK_BYTES
        if prompt is PROMPT:
            assert moved == blocks(prompt) * BLOCK_BYTES

    # The engine that prefilled dies before its blocks were read: they are computed, within the deadline.
    last = [3 + i * 11 % 500 for i in range(500)]
    _, parameters = producer.transfer(last, 1, {"do_remote_decode": True, "do_remote_prefill": False})
    producer.kill()
    before = len(traced(trace))
    tokens, _ = consumer.transfer(last, 16, parameters)
    lines = traced(trace)[before:]
    assert lines and all(line["status"] < 0 for line in lines)
    consumer.close()
    plain = engine(models[0])
    assert [tokens] == [tokens for tokens, _ in plain.generate([last], 16)]
