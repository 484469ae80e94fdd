//! Defects on purpose: each makes some schedule fail, or a test that is made for it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tranship_cache::tier::nvme::sabotage::{Defect, choose};

use crate::run::run;
use crate::say;
use crate::splice::a_page_of_another_history_ends_the_log;

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

/// What notices a defect that chance hardly ever meets.
fn directed(defect: Defect) -> Option<(&'static str, fn())> {
    (defect == Defect::BrokenChain)
        .then_some(("a page of another history", a_page_of_another_history_ends_the_log))
}

/// Who notices, and what it says.
fn caught(defect: Defect) -> Option<(String, Box<dyn Any + Send>)> {
    let fails = |test: &dyn Fn()| {
        let tried = AssertUnwindSafe(|| {
            let _broken = Broken::by(defect);
            test();
        });
        catch_unwind(tried).err()
    };
    if let Some((name, test)) = directed(defect) {
        return fails(&test).map(|panic| (name.to_owned(), panic));
    }
    (0..TRIES).find_map(|seed| Some((format!("schedule {seed}"), fails(&|| _ = run(seed))?)))
}

#[test]
fn every_defect_makes_a_schedule_fail() {
    let mut missed = Vec::new();
    let chosen = std::env::var("TRANSHIP_DEFECT").ok();
    let asked = |defect: &Defect| chosen.as_ref().is_none_or(|name| *name == format!("{defect:?}"));
    for defect in Defect::ALL.into_iter().filter(asked) {
        match caught(defect) {
            Some((by, panic)) => {
                let first = text(&*panic).lines().next().unwrap_or_default();
                let first: String = first.chars().take(100).collect();
                say(&format!("{defect:?}: caught by {by}: {first}"));
            }
            None => missed.push(defect),
        }
    }
    assert!(missed.is_empty(), "no schedule of {TRIES}, and no other test, notices {missed:?}");
}
