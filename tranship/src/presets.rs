//! The KV geometry of public models: how many bytes one token leaves in the cache.
//!
//! The numbers are those of the `config.json` that each model is published with
//! (`num_hidden_layers`, `num_key_value_heads`, `head_dim`; for multi-head latent attention
//! `kv_lora_rank` and `qk_rope_head_dim`), at two bytes an element (bf16).

use std::fmt;

use crate::suggest;

/// Tokens in one block of a trace.
pub const BLOCK_TOKENS: u32 = 512;

const BF16_BYTES: u64 = 2;

/// What a model keeps for each token and layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// A key and a value for each KV head.
    Grouped {
        /// `num_key_value_heads`
        kv_heads: u32,
        /// `head_dim`
        head_dim: u32,
    },
    /// One compressed latent and one rotary key, shared by all heads (MLA).
    Latent {
        /// `kv_lora_rank`
        rank: u32,
        /// `qk_rope_head_dim`
        rope_dim: u32,
    },
}

/// A model by its public name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// The name, in lower case.
    pub name: &'static str,
    /// `num_hidden_layers`; layers with a sliding window count in full.
    pub layers: u32,
    /// What each layer keeps.
    pub attention: Attention,
}

const fn grouped(name: &'static str, layers: u32, kv_heads: u32, head_dim: u32) -> Preset {
    Preset { name, layers, attention: Attention::Grouped { kv_heads, head_dim } }
}

const fn latent(name: &'static str, layers: u32, rank: u32, rope_dim: u32) -> Preset {
    Preset { name, layers, attention: Attention::Latent { rank, rope_dim } }
}

/// Every known model.
pub const PRESETS: &[Preset] = &[
    latent("deepseek-v3", 61, 512, 64),
    grouped("gpt-oss-20b", 24, 8, 64),
    grouped("gpt-oss-120b", 36, 8, 64),
    grouped("llama-3.1-8b", 32, 8, 128),
    grouped("llama-3.1-70b", 80, 8, 128),
    grouped("llama-3.1-405b", 126, 8, 128),
    grouped("qwen3-0.6b", 28, 8, 128),
    grouped("qwen3-8b", 36, 8, 128),
    grouped("qwen3-32b", 64, 8, 128),
    grouped("qwen3-235b-a22b", 94, 4, 128),
];

impl Preset {
    /// Finds a model by name, whatever its case.
    ///
    /// # Errors
    /// [`Unknown`] lists the known names and the closest one.
    pub fn find(name: &str) -> Result<&'static Self, Unknown> {
        let lower = name.to_lowercase();
        PRESETS.iter().find(|preset| preset.name == lower).ok_or_else(|| {
            let hint = suggest::hint(&lower, PRESETS.iter().map(|preset| preset.name));
            Unknown { name: name.to_owned(), hint }
        })
    }

    /// Bytes that one token leaves in the cache, all layers together.
    #[must_use]
    pub const fn bytes_per_token(&self) -> u64 {
        let elements = match self.attention {
            Attention::Grouped { kv_heads, head_dim } => 2 * kv_heads as u64 * head_dim as u64,
            Attention::Latent { rank, rope_dim } => rank as u64 + rope_dim as u64,
        };
        self.layers as u64 * elements * BF16_BYTES
    }

    /// Bytes of one block of [`BLOCK_TOKENS`] tokens.
    #[must_use]
    pub const fn bytes_per_block(&self) -> u64 {
        self.bytes_per_token() * BLOCK_TOKENS as u64
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

/// A name that no preset has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown model {name:?}{hint}; known models: {}", known())]
pub struct Unknown {
    name: String,
    hint: String,
}

fn known() -> String {
    PRESETS.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_per_token_are_those_of_the_published_configurations() {
        for (name, bytes) in [
            ("llama-3.1-8b", 131_072),
            ("llama-3.1-70b", 327_680),
            ("qwen3-0.6b", 114_688),
            ("qwen3-235b-a22b", 192_512),
            ("deepseek-v3", 70_272),
            ("gpt-oss-120b", 73_728),
        ] {
            let preset = Preset::find(name).unwrap();
            assert_eq!(preset.bytes_per_token(), bytes, "{name}");
            assert_eq!(preset.bytes_per_block(), 512 * bytes, "{name}");
        }
        assert!(Preset::find("Llama-3.1-8B").is_ok());
    }

    #[test]
    fn an_unknown_model_is_met_with_the_known_ones() {
        let message = Preset::find("lama-3.1-8b").unwrap_err().to_string();
        assert!(message.starts_with(
            "unknown model \"lama-3.1-8b\"; did you mean \"llama-3.1-8b\"?; known models: deepseek-v3,"
        ));
    }
}
