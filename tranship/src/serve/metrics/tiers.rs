//! Figures of the tiers below memory.

use std::fmt;

use super::{BYTES, Page};
use crate::serve::observe::{Below, TierState};

/// One sample a tier.
fn each(
    tiers: &[Below],
    value: impl Fn(&Below) -> u64,
) -> impl Iterator<Item = ([(&'static str, &'static str); 1], u64)> {
    tiers.iter().map(move |below| ([("tier", below.tier.name())], value(below)))
}

pub(super) fn encode(page: &mut Page<'_>, tiers: &[Below]) -> fmt::Result {
    let states = tiers.iter().flat_map(|below| {
        let tier = ("tier", below.tier.name());
        TierState::ALL
            .map(|state| ([tier, ("state", state.name())], u64::from(below.state == state)))
    });
    let help = "1 for the state a tier below memory is in, 0 for the others";
    page.gauge("tier_state", None, help, states)?;
    stock(page, tiers)?;
    traffic(page, tiers)
}

fn stock(page: &mut Page<'_>, tiers: &[Below]) -> fmt::Result {
    let blocks = each(tiers, |t| t.figures.blocks);
    page.gauge("tier_blocks", None, "Blocks in a tier below memory", blocks)?;
    let bytes = each(tiers, |t| t.figures.bytes);
    page.gauge("tier_block", BYTES, "Payload of these blocks", bytes)?;
    let capacity = each(tiers, |t| t.figures.capacity_bytes);
    page.gauge("tier_capacity", BYTES, "Space that the tier may take", capacity)?;
    let index = each(tiers, |t| t.figures.index_bytes);
    page.gauge("tier_index", BYTES, "Memory that the tier's index takes", index)?;
    let found = each(tiers, |t| t.figures.recovered);
    page.counter("tier_recovered_blocks", None, "Blocks found at the start", found)
}

fn traffic(page: &mut Page<'_>, tiers: &[Below]) -> fmt::Result {
    let stored = each(tiers, |t| t.figures.stored);
    page.counter("tier_stored_blocks", None, "Blocks stored", stored)?;
    let bytes = each(tiers, |t| t.figures.stored_bytes);
    page.counter("tier_stored", BYTES, "Payload stored", bytes)?;
    let loaded = each(tiers, |t| t.figures.loaded);
    page.counter("tier_loaded_blocks", None, "Blocks loaded", loaded)?;
    let bytes = each(tiers, |t| t.figures.loaded_bytes);
    page.counter("tier_loaded", BYTES, "Payload loaded", bytes)?;
    let failed = each(tiers, |t| t.figures.failed);
    page.counter("tier_failures", None, "Loads and stores that failed", failed)?;
    let corrupt = each(tiers, |t| t.figures.corrupt);
    page.counter("tier_corrupt_blocks", None, "Blocks dropped for damaged bytes", corrupt)?;
    let evicted = each(tiers, |t| t.figures.evicted);
    page.counter("tier_evicted_blocks", None, "Blocks that left for want of room", evicted)?;
    let again = each(tiers, |t| t.figures.reinserted);
    let help = "Blocks written again so that their place could be reclaimed";
    page.counter("tier_reinserted_blocks", None, help, again)?;
    let device = tiers.iter().flat_map(|below| {
        let tier = ("tier", below.tier.name());
        let f = &below.figures;
        [("write", f.device_written_bytes), ("read", f.device_read_bytes)]
            .map(|(direction, bytes)| ([tier, ("direction", direction)], bytes))
    });
    let help = "Bytes written to and read from the device or service, everything included";
    page.counter("tier_device", BYTES, help, device)
}
