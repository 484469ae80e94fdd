//! Lists of policies, capacities and tiers, as they are typed.

use std::time::Duration;

use crate::presets::BLOCK_TOKENS;
use crate::suggest;
use crate::trace::simulate::Contender;
use crate::trace::simulate::tiers::Spec;
use crate::units::{Size, Span, Tokens};

/// Names every policy.
pub(super) const ALL: &str = "all";
/// More tell nothing.
const TIERS_MAX: usize = 8;

/// Splits a list, and refuses holes in it.
fn items<'a>(flag: &str, list: &'a str) -> Result<Vec<&'a str>, String> {
    let items: Vec<&str> = list.split(',').map(str::trim).collect();
    match items.iter().position(|item| item.is_empty()) {
        Some(at) => Err(format!(
            "{flag} {list:?}: item {} is empty; separate items by single commas",
            at + 1
        )),
        None => Ok(items),
    }
}

/// Reads `lru,lineage`, or `all`.
pub(super) fn contenders(list: &str) -> Result<Vec<Contender>, String> {
    let mut contenders = Vec::new();
    for item in items("--policy", list)? {
        if item == ALL {
            contenders.extend(Contender::all());
            continue;
        }
        let known = Contender::all().find(|contender| contender.name() == item);
        contenders.push(known.ok_or_else(|| {
            let names: Vec<&str> = Contender::all().map(Contender::name).collect();
            let hint = suggest::hint(item, names.iter().copied());
            format!("--policy: unknown policy {item:?}{hint}; known: {}, all", names.join(", "))
        })?);
    }
    let mut once: Vec<Contender> = Vec::new();
    for contender in contenders {
        if !once.contains(&contender) {
            once.push(contender);
        }
    }
    Ok(once)
}

/// Reads `1.5M,3100000`.
pub(super) fn capacities(list: &str) -> Result<Vec<u64>, String> {
    let mut capacities = Vec::new();
    for item in items("--capacity-tokens", list)? {
        let tokens = at_least_a_block("--capacity-tokens", item)?;
        if !capacities.contains(&tokens) {
            capacities.push(tokens);
        }
    }
    Ok(capacities)
}

fn at_least_a_block(flag: &str, item: &str) -> Result<u64, String> {
    let tokens: Tokens = item.parse().map_err(|error| format!("{flag} {error}"))?;
    if tokens.count() < u64::from(BLOCK_TOKENS) {
        return Err(format!(
            "{flag} {item:?}: less than one block of {BLOCK_TOKENS} tokens; give more, as in 1.5M"
        ));
    }
    Ok(tokens.count())
}

/// Reads `nvme=30M,5GB,100us`.
pub(super) fn tier(text: &str) -> Result<Spec, String> {
    let flag = "--tier";
    let Some((name, rest)) = text.split_once('=') else {
        return Err(format!("{flag} {text:?}: expected NAME=TOKENS, such as dram=3.1M"));
    };
    let (name, parts) = (name.trim(), items(flag, rest)?);
    let (bytes_per_second, latency) = usual(name);
    let mut spec = Spec {
        name: name.to_owned(),
        tokens: at_least_a_block(flag, parts[0])?,
        bytes_per_second,
        latency,
    };
    if spec.name.is_empty() {
        return Err(format!("{flag} {text:?}: a name is missing, as in dram=3.1M"));
    }
    if let Some(rate) = parts.get(1) {
        let rate: Size = rate.parse().map_err(|error| format!("{flag} {error}"))?;
        if rate.bytes() == 0 {
            return Err(format!("{flag} {text:?}: loads no bytes a second; give more, as in 5GB"));
        }
        spec.bytes_per_second = rate.bytes();
    }
    if let Some(latency) = parts.get(2) {
        let latency: Span = latency.parse().map_err(|error| format!("{flag} {error}"))?;
        spec.latency = latency.duration();
    }
    match parts.get(3) {
        Some(more) => Err(format!("{flag} {text:?}: {more:?} is too much; {FORM}")),
        None => Ok(spec),
    }
}

const FORM: &str = "expected NAME=TOKENS[,BYTES a second[,LATENCY]]";

/// Rates and latencies of tiers by their usual names.
fn usual(name: &str) -> (u64, Duration) {
    match name {
        "dram" => (20_000_000_000, Duration::from_micros(10)),
        "nvme" => (5_000_000_000, Duration::from_micros(100)),
        _ => (1_000_000_000, Duration::from_millis(30)),
    }
}

/// Checks what policies and tiers can be together; `all` of the policies means those that can.
pub(super) fn together(contenders: &[Contender], specs: &[Spec], all: bool) -> Result<(), String> {
    if contenders.contains(&Contender::Opt) && !all {
        return Err("--policy opt bounds the hits of one tier; leave it out with --tier".to_owned());
    }
    if specs.len() > TIERS_MAX {
        return Err(format!("--tier: {} tiers; give at most {TIERS_MAX}", specs.len()));
    }
    for (index, spec) in specs.iter().enumerate() {
        if specs[..index].iter().any(|other| other.name == spec.name) {
            return Err(format!("--tier: two tiers are named {:?}; names must differ", spec.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_around_a_tiers_name_do_not_matter() {
        assert_eq!(tier(" nvme =30M"), tier("nvme=30M"));
    }

    #[test]
    fn lists_are_read_and_each_item_counts_once() {
        let names = |list| {
            contenders(list).map(|all| all.into_iter().map(Contender::name).collect::<Vec<_>>())
        };
        assert_eq!(names("lru, opt,lru"), Ok(vec!["lru", "opt"]));
        assert_eq!(names("all").unwrap().len(), 7);
        assert_eq!(capacities("1.5M,3100000,1500k"), Ok(vec![1_500_000, 3_100_000]));
        assert_eq!(
            tier("nvme=30M,7GB,80us"),
            Ok(Spec {
                name: "nvme".to_owned(),
                tokens: 30_000_000,
                bytes_per_second: 7_000_000_000,
                latency: Duration::from_micros(80),
            })
        );
        assert_eq!(tier("dram=3.1M").unwrap().bytes_per_second, 20_000_000_000);
    }

    #[test]
    fn each_mistake_is_one_line_that_says_what_to_do() {
        for (error, says) in [
            (contenders("linage").unwrap_err(), "\"linage\"; did you mean \"lineage\"?"),
            (contenders("lru,,opt").unwrap_err(), "item 2 is empty"),
            (capacities("0").unwrap_err(), "\"0\": less than one block of 512 tokens"),
            (capacities("511").unwrap_err(), "give more, as in 1.5M"),
            (capacities("1.5M,3x").unwrap_err(), "\"3x\": unknown unit \"x\""),
            (capacities("").unwrap_err(), "item 1 is empty"),
            (tier("dram").unwrap_err(), "expected NAME=TOKENS"),
            (tier("=3M").unwrap_err(), "a name is missing"),
            (tier("x=3M,0").unwrap_err(), "loads no bytes a second"),
            (tier("x=3M,1GB,1ms,9").unwrap_err(), "\"9\" is too much"),
            (tier("x=3M,1GB,9").unwrap_err(), "missing unit"),
        ] {
            assert!(error.contains(says) && !error.contains('\n'), "{error}");
        }
        let twice = [tier("a=1M").unwrap(), tier("a=2M").unwrap()];
        assert!(together(&[], &twice, false).unwrap_err().contains("names must differ"));
        assert!(together(&[Contender::Opt], &twice[..1], false).unwrap_err().contains("one tier"));
        assert_eq!(together(&[Contender::Opt], &twice[..1], true), Ok(()));
    }
}
