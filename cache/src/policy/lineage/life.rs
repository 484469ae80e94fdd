//! How long blocks of each class wait for their next use, learnt from all blocks that are known.
//!
//! An *observation* begins with a use of a block and ends with the next use (a hit), when its session
//! leaves it behind (a death), or when it is forgotten (censored); those that are still open count as
//! censored at their present age. From these follow, by age, the hazards of hit and death
//! (Kaplan and Meier, "Nonparametric estimation from incomplete observations", JASA 1958).
//!
//! Classes with few observations borrow from others: the hazard of a class is that of its kind times
//! a factor for each of its levels, as far as its own observations do not say otherwise.
//!
//! The *index* of a class at an age is the most uses a second that keeping a block from then on can
//! bring, over all times until which it may be kept (Gittins, "Bandit processes and dynamic allocation
//! indices", JRSS B 1979).

use super::class::{CLASSES, Class, Kind, LEVELS, LEVELS_MAX};

/// Ages are told apart in half octaves of this many milliseconds and more.
const AGE_UNIT_BITS: u32 = 6;
/// Half octaves: up to twelve days.
pub(super) const AGES: usize = 48;
/// Classes with a row of their own; others share the row of their kind.
const ROWS_MAX: usize = 1024;

/// Weight of what all kinds say in what one kind says, blocks.
const KIND_WEIGHT: f32 = 300.0;
const GAP_WEIGHT: f32 = 500.0;
/// Weight of a level's factor being 1, expected hits.
const LEVEL_WEIGHT: f32 = 100.0;
/// Weight of what the factors say in how much more often than its kind a class is hit.
const CLASS_WEIGHT: f32 = 1000.0;
/// Weight of that in its hazard at one age, blocks.
const AGE_WEIGHT: f32 = 2000.0;
/// Weight of no death.
const DEATH_WEIGHT: f32 = 100.0;
/// Weight of the assumption that what was used recently is used again, blocks.
const PRIOR_WEIGHT: f32 = 2.0;
const HAZARD_MAX: f32 = 0.9;
type Curve = [f32; AGES];
const ZERO: Curve = [0.0; AGES];

/// Observations of one class by the age at which they ended or were joined.
#[derive(Clone, Debug)]
struct Row {
    class: Class,
    hit: Curve,
    died: Curve,
    gone: Curve,
    /// Came from another class at this age.
    joined: Curve,
    /// Open ones, as last counted, and as they are being counted.
    open: Curve,
    counting: Curve,
    index: Curve,
}

/// The estimates.
#[derive(Debug)]
pub(super) struct Lives {
    rows: Vec<Row>,
    /// Row of each class, or none.
    of: Box<[u16; CLASSES]>,
    widths: Curve,
}

/// Number of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RowId(u16);

const NO_ROW: u16 = u16::MAX;

/// The half octave of an age.
pub(super) fn bucket(age_ms: u64) -> usize {
    let value = (age_ms >> AGE_UNIT_BITS) + 1;
    let octave = 63 - value.leading_zeros();
    let half = if octave == 0 { 0 } else { value >> (octave - 1) & 1 };
    (2 * octave as usize + half as usize).min(AGES - 1)
}

/// Where a half octave begins, milliseconds.
fn start(bucket: usize) -> f32 {
    let octave = (1_u64 << (bucket / 2)) as f32;
    (octave * (1.0 + 0.5 * (bucket % 2) as f32) - 1.0) * (1 << AGE_UNIT_BITS) as f32
}

impl Lives {
    pub(super) fn new() -> Self {
        let widths = std::array::from_fn(|age| start(age + 1) - start(age));
        Self { rows: Vec::new(), of: Box::new([NO_ROW; CLASSES]), widths }
    }

    /// The row of a class, made now if there was none.
    pub(super) fn row(&mut self, class: Class) -> RowId {
        let known = self.of[class.code()];
        if known != NO_ROW {
            return RowId(known);
        }
        // The last rows are kept for the kinds, so that every class has one.
        let coarse = class.coarse();
        if class != coarse && self.rows.len() + Kind::COUNT >= ROWS_MAX {
            let row = self.row(coarse);
            self.of[class.code()] = row.0;
            return row;
        }
        let row = self.rows.len() as u16;
        let index = self.guess(class);
        let new = Row {
            class,
            hit: ZERO,
            died: ZERO,
            gone: ZERO,
            joined: ZERO,
            open: ZERO,
            counting: ZERO,
            index,
        };
        self.rows.push(new);
        self.of[class.code()] = row;
        RowId(row)
    }

    /// The index of a class that nothing is known of: the row of its kind, or any, or recency.
    fn guess(&self, class: Class) -> Curve {
        let near = self.rows.iter().find(|row| row.class.kind() == class.kind());
        near.or(self.rows.first()).map_or_else(
            || std::array::from_fn(|age| 0.5 / (start(age) + 1_000.0)),
            |row| row.index,
        )
    }

    /// The row of a class, if it has one.
    pub(super) fn find(&self, class: Class) -> Option<RowId> {
        let row = self.of[class.code()];
        (row != NO_ROW).then_some(RowId(row))
    }

    pub(super) fn class(&self, row: RowId) -> Class {
        self.rows[row.0 as usize].class
    }

    /// Uses a millisecond that keeping a block from this age on brings at best.
    #[inline]
    pub(super) fn index(&self, row: RowId, age_ms: u64) -> f32 {
        self.rows[row.0 as usize].index[bucket(age_ms)]
    }

    pub(super) fn hit(&mut self, row: RowId, age_ms: u64) {
        self.rows[row.0 as usize].hit[bucket(age_ms)] += 1.0;
    }

    pub(super) fn gone(&mut self, row: RowId, age_ms: u64) {
        self.rows[row.0 as usize].gone[bucket(age_ms)] += 1.0;
    }

    /// A block of one class became one of another at this age.
    pub(super) fn left(&mut self, row: RowId, to: RowId, age_ms: u64) {
        let age = bucket(age_ms);
        self.rows[row.0 as usize].died[age] += 1.0;
        self.rows[to.0 as usize].joined[age] += 1.0;
    }

    /// Counts an open observation; [`counted`](Self::counted) ends the round.
    pub(super) fn count(&mut self, row: RowId, age_ms: u64) {
        self.rows[row.0 as usize].counting[bucket(age_ms)] += 1.0;
    }

    pub(super) fn counted(&mut self) {
        for row in &mut self.rows {
            row.open = std::mem::replace(&mut row.counting, ZERO);
        }
    }

    /// Makes hazards and indices again, and lets old observations fade by a share of their mean time.
    pub(super) fn estimate(&mut self, fade: f32) {
        let kept = (-fade).exp();
        let risks: Vec<Curve> = self.rows.iter().map(Row::risk).collect();
        let all = self.all(&risks);
        let kinds = self.kinds(&risks, &all);
        let kinds = self.gaps(&risks, &kinds);
        let expected = |row: &Row, risk: &Curve| dot(risk, &kinds[row.class.group()]);
        let tallies: Vec<Tally> = self
            .rows
            .iter()
            .zip(&risks)
            .map(|(row, risk)| Tally {
                class: row.class,
                expected: expected(row, risk),
                hits: row.hit.iter().sum(),
            })
            .collect();
        let factors = Factors::fit(&tallies);
        for ((row, risk), tally) in self.rows.iter_mut().zip(&risks).zip(&tallies) {
            let factor = factors.of(row.class);
            let own = (tally.hits + CLASS_WEIGHT * factor) / (tally.expected + CLASS_WEIGHT);
            let base = &kinds[row.class.group()];
            let hazards = std::array::from_fn(|age| {
                let prior = (base[age] * own).min(HAZARD_MAX);
                let hit = (row.hit[age] + AGE_WEIGHT * prior) / (risk[age] + AGE_WEIGHT);
                (hit.min(1.0), row.died[age] / (risk[age] + DEATH_WEIGHT))
            });
            row.index = index(&hazards, &self.widths);
            for curve in [&mut row.hit, &mut row.died, &mut row.gone, &mut row.joined] {
                curve.iter_mut().for_each(|count| *count *= kept);
            }
        }
    }

    /// The hazard over all classes: at first, that of what is used again after as long as it was not.
    fn all(&self, risks: &[Curve]) -> Curve {
        std::array::from_fn(|age| {
            let hits: f32 = self.rows.iter().map(|row| row.hit[age]).sum();
            let risk: f32 = risks.iter().map(|risk| risk[age]).sum();
            let middle = start(age) + self.widths[age] / 2.0;
            let prior = 1.0 - (-0.5 * self.widths[age] / (middle + 1_000.0)).exp();
            (hits + PRIOR_WEIGHT * prior) / (risk + PRIOR_WEIGHT)
        })
    }

    fn kinds(&self, risks: &[Curve], all: &Curve) -> [Curve; Kind::COUNT] {
        let mut hits = [ZERO; Kind::COUNT];
        let mut at_risk = [ZERO; Kind::COUNT];
        for (row, risk) in self.rows.iter().zip(risks) {
            let kind = row.class.kind() as usize;
            for age in 0..AGES {
                hits[kind][age] += row.hit[age];
                at_risk[kind][age] += risk[age];
            }
        }
        std::array::from_fn(|kind| {
            let expected = dot(&at_risk[kind], all);
            let observed: f32 = hits[kind].iter().sum();
            let factor = (observed + LEVEL_WEIGHT) / (expected + LEVEL_WEIGHT);
            std::array::from_fn(|age| {
                let prior = (all[age] * factor).min(HAZARD_MAX);
                let hit = hits[kind][age] + KIND_WEIGHT * prior;
                hit / (at_risk[kind][age] + KIND_WEIGHT)
            })
        })
    }
}

impl Lives {
    fn gaps(&self, risks: &[Curve], kinds: &[Curve; Kind::COUNT]) -> Vec<Curve> {
        let mut sums = vec![(ZERO, ZERO); Kind::COUNT * LEVELS[1]];
        for (row, risk) in self.rows.iter().zip(risks) {
            let (hits, at_risk) = &mut sums[row.class.group()];
            for age in 0..AGES {
                hits[age] += row.hit[age];
                at_risk[age] += risk[age];
            }
        }
        sums.iter()
            .enumerate()
            .map(|(group, (hits, at_risk))| {
                let base = &kinds[group / LEVELS[1]];
                let expected = dot(at_risk, base);
                let observed: f32 = hits.iter().sum();
                let factor = (observed + LEVEL_WEIGHT) / (expected + LEVEL_WEIGHT);
                std::array::from_fn(|age| {
                    let prior = (base[age] * factor).min(HAZARD_MAX);
                    (hits[age] + GAP_WEIGHT * prior) / (at_risk[age] + GAP_WEIGHT)
                })
            })
            .collect()
    }
}

fn dot(a: &Curve, b: &Curve) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Row {
    /// Blocks that were still waiting at each age. Those that ended there without a hit count half.
    fn risk(&self) -> Curve {
        let mut risk = ZERO;
        let mut waiting = 0.0;
        for age in (0..AGES).rev() {
            let unhit = self.died[age] + self.gone[age] + self.open[age];
            waiting += self.hit[age] + unhit;
            risk[age] = (waiting - 0.5 * (unhit + self.joined[age])).max(0.0);
            waiting -= self.joined[age];
        }
        risk
    }
}

/// Hits of one class, and how many its kind would have had.
struct Tally {
    class: Class,
    expected: f32,
    hits: f32,
}

/// How much more often than their kind blocks with one level of one factor are hit.
struct Factors([[[f32; LEVELS_MAX]; LEVELS.len()]; Kind::FAMILIES]);

impl Factors {
    /// Rounds of proportional fitting; factors settle within a few.
    const ROUNDS: usize = 3;

    fn fit(tallies: &[Tally]) -> Self {
        let mut fit = Self([[[1.0; LEVELS_MAX]; LEVELS.len()]; Kind::FAMILIES]);
        for _ in 0..Self::ROUNDS {
            for factor in 0..LEVELS.len() {
                let mut sums = [[(0.0, 0.0); LEVELS_MAX]; Kind::FAMILIES];
                for tally in tallies {
                    let (family, levels) = (tally.class.kind().family(), tally.class.levels());
                    let others = fit.of(tally.class) / fit.0[family][factor][levels[factor]];
                    let sum: &mut (f32, f32) = &mut sums[family][levels[factor]];
                    sum.0 += tally.hits;
                    sum.1 += tally.expected * others;
                }
                for (levels, sums) in fit.0.iter_mut().zip(&sums) {
                    for (level, (hits, expected)) in levels[factor].iter_mut().zip(sums) {
                        *level = (hits + LEVEL_WEIGHT) / (expected + LEVEL_WEIGHT);
                    }
                }
            }
        }
        fit
    }

    fn of(&self, class: Class) -> f32 {
        let factors = self.0[class.kind().family()].iter();
        factors.zip(class.levels()).map(|(levels, level)| levels[level]).product()
    }
}

/// The best uses a millisecond from the middle of each age on, from the hazards of hit and death.
///
/// From the last age back, stretches whose yield is above that of what precedes them are joined to
/// it, since keeping a block until they begin pays only if it is kept through them.
fn index(hazards: &[(f32, f32); AGES], widths: &Curve) -> Curve {
    /// A stretch of ages, entered once: uses, time kept, and the share that is left after it.
    #[derive(Clone, Copy)]
    struct Stretch(f32, f32, f32);

    let mut stretches: Vec<Stretch> = Vec::with_capacity(AGES);
    let mut index = ZERO;
    for age in (0..AGES).rev() {
        let ((hit, death), width) = (hazards[age], widths[age]);
        let ends = (hit + death).min(1.0);
        let whole = Stretch(hit, (1.0 - ends / 2.0) * width, 1.0 - ends);
        let half = Stretch(hit / 2.0, (1.0 - ends / 4.0) * width / 2.0, 1.0 - ends / 2.0);
        let better = |next: Stretch, so_far: Stretch| next.0 * so_far.1 > so_far.0 * next.1;
        let join = |a: Stretch, b: Stretch| Stretch(a.0 + a.2 * b.0, a.1 + a.2 * b.1, a.2 * b.2);
        let mut best = half;
        for next in stretches.iter().rev() {
            if !better(*next, best) {
                break;
            }
            best = join(best, *next);
        }
        index[age] = best.0 / best.1;
        let mut first = whole;
        while let Some(next) = stretches.pop() {
            if !better(next, first) {
                stretches.push(next);
                break;
            }
            first = join(first, next);
        }
        stretches.push(first);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_fall_into_half_octaves() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), AGES - 1);
        // The shortest ages are whole milliseconds only: their half octave has nothing in it.
        for age in (0..AGES - 1).filter(|age| *age != 1) {
            assert_eq!(bucket(start(age).ceil() as u64), age);
            assert!(bucket(start(age + 1) as u64 - 1) <= age);
        }
    }

    #[test]
    fn the_index_is_the_best_yield_over_all_ends() {
        let lives = Lives::new();
        let hazards: [(f32, f32); AGES] = std::array::from_fn(|age| match age {
            20..24 => (0.3, 0.0),
            24..30 => (0.05, 0.1),
            _ => (0.01, 0.01),
        });
        let fast = index(&hazards, &lives.widths);
        for (age, fast) in fast.into_iter().enumerate() {
            let (mut uses, mut time, mut left, mut best) = (0.0, 0.0, 1.0, 0.0_f32);
            for (next, (hit, death)) in hazards.into_iter().enumerate().skip(age) {
                let share = if next == age { 0.5 } else { 1.0 };
                let ends = (hit + death) * share;
                uses += left * hit * share;
                time += left * (1.0 - ends / 2.0) * lives.widths[next] * share;
                left *= 1.0 - ends;
                best = best.max(uses / time);
            }
            assert!((fast / best - 1.0).abs() < 1e-3, "{age}: {fast} {best}");
        }
    }

    #[test]
    fn what_returns_is_worth_more_than_what_does_not() {
        let mut lives = Lives::new();
        let comes = lives.row(Class::new(Kind::Turn1, 1, 3, 0));
        let goes = lives.row(Class::new(Kind::Fresh, 4, 0, 2));
        for _ in 0..3_000 {
            lives.hit(comes, 60_000);
            lives.gone(goes, 300_000);
        }
        lives.estimate(0.0);
        assert!(lives.index(comes, 0) > 10.0 * lives.index(goes, 0));
        // Once the time at which its likes return has passed, nothing is expected any more.
        assert!(lives.index(comes, 40_000) > lives.index(comes, 0));
        assert!(lives.index(comes, 40_000) > 10.0 * lives.index(comes, 400_000));
    }

    #[test]
    fn a_new_level_is_judged_by_its_factors() {
        let mut lives = Lives::new();
        for gap in 0..4 {
            let small = lives.row(Class::new(Kind::Turn1, 1, gap, 0));
            let large = lives.row(Class::new(Kind::Turn1, 4, gap, 0));
            for _ in 0..2_000 {
                lives.hit(small, 30_000);
                lives.gone(large, 300_000);
            }
        }
        let (small, large) = (
            lives.row(Class::new(Kind::Turn1, 1, 9, 0)),
            lives.row(Class::new(Kind::Turn1, 4, 9, 0)),
        );
        lives.estimate(0.0);
        assert!(lives.index(small, 0) > 3.0 * lives.index(large, 0));
    }

    #[test]
    fn rows_are_bounded_and_every_class_has_one() {
        let mut lives = Lives::new();
        for code in 0..CLASSES {
            lives.row(Class::from_code(code));
        }
        assert!(lives.rows.len() <= ROWS_MAX);
        lives.estimate(0.0);
    }
}
