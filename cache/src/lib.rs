//! Tiered KV-block cache.
