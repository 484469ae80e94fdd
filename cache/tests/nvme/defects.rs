//! Defects on purpose: each makes some schedule fail.

use std::any::Any;
use std::panic::catch_unwind;

use tranship_cache::tier::nvme::sabotage::{Defect, choose};

use crate::run::run;
use crate::say;

/// Schedules that are tried for each defect.
const TRIES: u64 = 4000;

/// Switches the defect off, also when a schedule fails.
struct Broken;

impl Broken {
    fn by(defect: Defect) -> Self {
        choose(Some(defect));
        Self
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        choose(None);
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}

#[test]
fn every_defect_makes_a_schedule_fail() {
    let mut missed = Vec::new();
    let chosen = std::env::var("TRANSHIP_DEFECT").ok();
    let asked = |defect: &Defect| chosen.as_ref().is_none_or(|name| *name == format!("{defect:?}"));
    for defect in Defect::ALL.into_iter().filter(asked) {
        let caught = (0..TRIES).find_map(|seed| {
            let failed = catch_unwind(|| {
                let _broken = Broken::by(defect);
                run(seed)
            });
            failed.err().map(|panic| (seed, panic))
        });
        match caught {
            Some((seed, panic)) => {
                let first = text(&*panic).lines().next().unwrap_or_default();
                let first: String = first.chars().take(100).collect();
                say(&format!("{defect:?}: caught by schedule {seed}: {first}"));
            }
            None => missed.push(defect),
        }
    }
    assert!(missed.is_empty(), "no schedule of {TRIES} notices {missed:?}");
}
