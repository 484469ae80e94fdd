"""vLLM: a KV connector (`KVConnectorBase_V1`, hybrid caches included).

    vllm serve MODEL --kv-transfer-config '{"kv_connector": "TranshipConnector",
        "kv_connector_module_path": "tranship.vllm", "kv_role": "kv_both",
        "kv_load_failure_policy": "recompute"}'

`kv_connector_extra_config` knows: `address`, `tenant`, `token`, `secret`, `load` (async | sync), `save` (async |
sync | layerwise | off), `threads`, `timeout` (seconds a call may take), `weights_version`, `salt`.
"""

from .connector import TranshipConnector

__all__ = ["TranshipConnector"]
