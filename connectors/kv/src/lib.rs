//! Blocks between the pages of an engine and the cache.
