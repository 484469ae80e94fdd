//! Hit ratio by capacity, as SVG without any library.
//!
//! Colours are given by style sheet, with another set for readers who prefer dark; lines end in
//! the name of their policy, so that no colour has to be told from another one.

use std::fmt::Write as _;

use super::Outcome;
use crate::units::Tokens;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 112.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 52.0;
/// Least distance between two names at the ends of lines.
const NAME_HEIGHT: f64 = 15.0;

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:15px;font-weight:600}\
.grid{stroke:#ddd}.axis{stroke:#888}polyline{fill:none;stroke-width:1.8}\
.lineage{stroke:#c2410c;stroke-width:3}.opt{stroke:#555;stroke-dasharray:6 4}\
.lru{stroke:#2563eb}.slru{stroke:#0891b2}.s3fifo{stroke:#16a34a}.wtinylfu{stroke:#9333ea}\
.gdsf{stroke:#a16207}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.grid{stroke:#444}.axis{stroke:#999}\
.lineage{stroke:#fb923c}.opt{stroke:#bbb}.lru{stroke:#60a5fa}.slru{stroke:#22d3ee}\
.s3fifo{stroke:#4ade80}.wtinylfu{stroke:#c084fc}.gdsf{stroke:#facc15}}";

/// Draws all outcomes: a line a policy, capacity in powers of two.
#[must_use]
pub fn svg(outcomes: &[Outcome]) -> String {
    let chart = Chart::of(outcomes);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" aria-label=\"Hit ratio by capacity\">\n<style>{STYLE}</style>\n"
    );
    chart.axes(&mut svg);
    chart.lines(&mut svg, outcomes);
    svg.push_str("</svg>\n");
    svg
}

struct Chart {
    capacities: Vec<u64>,
    /// Highest ratio on the axis, and the step between lines of the grid, percent.
    top: f64,
    step: f64,
}

impl Chart {
    fn of(outcomes: &[Outcome]) -> Self {
        let mut capacities: Vec<u64> = outcomes.iter().map(|o| o.capacity_tokens).collect();
        capacities.sort_unstable();
        capacities.dedup();
        let most = outcomes.iter().map(|o| o.hit_ratio * 100.0).fold(1.0, f64::max);
        let step = [1.0, 2.0, 5.0, 10.0, 20.0].into_iter().find(|step| most / step <= 8.0);
        let step = step.unwrap_or(20.0);
        Self { capacities, top: (most / step).ceil() * step, step }
    }

    fn x(&self, capacity: u64) -> f64 {
        let log = |tokens: u64| (tokens.max(1) as f64).log2();
        let (first, last) = (self.capacities[0], self.capacities[self.capacities.len() - 1]);
        let span = log(last) - log(first);
        let share = if span > 0.0 { (log(capacity) - log(first)) / span } else { 0.5 };
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, percent: f64) -> f64 {
        HEIGHT - BOTTOM - percent / self.top * (HEIGHT - TOP - BOTTOM)
    }

    fn axes(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let _ = writeln!(
            svg,
            "<text class=\"title\" x=\"{LEFT}\" y=\"24\">Hit ratio by capacity</text>"
        );
        let mut percent = 0.0;
        while percent <= self.top {
            let y = self.y(percent);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{percent} %</text>",
                LEFT - 8.0,
                y + 4.0,
            );
            percent += self.step;
        }
        let mut free_from = 0.0;
        for capacity in &self.capacities {
            let x = self.x(*capacity);
            let _ = writeln!(
                svg,
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{:.1}\"/>",
                bottom + 5.0
            );
            // Names that would run into each other are left out.
            if x >= free_from {
                let name = Tokens::new(*capacity).rounded();
                let y = bottom + 19.0;
                let _ = writeln!(
                    svg,
                    "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{name}</text>"
                );
                free_from = x + 44.0;
            }
        }
        let middle = f64::midpoint(LEFT, right);
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">capacity, tokens</text>",
            HEIGHT - 12.0
        );
    }

    fn lines(&self, svg: &mut String, outcomes: &[Outcome]) {
        let mut policies: Vec<&str> = Vec::new();
        for outcome in outcomes {
            if !policies.contains(&outcome.policy) {
                policies.push(outcome.policy);
            }
        }
        let mut names = Vec::new();
        for policy in policies {
            let mut points: Vec<(u64, f64)> = outcomes
                .iter()
                .filter(|outcome| outcome.policy == policy)
                .map(|outcome| (outcome.capacity_tokens, outcome.hit_ratio * 100.0))
                .collect();
            points.sort_unstable_by_key(|(capacity, _)| *capacity);
            let places: Vec<String> = points
                .iter()
                .map(|(capacity, percent)| {
                    format!("{:.1},{:.1}", self.x(*capacity), self.y(*percent))
                })
                .collect();
            // A single point is a short stroke, or nothing would be seen.
            let path = match &places[..] {
                [one] => format!("{one} {one}"),
                all => all.join(" "),
            };
            let _ = writeln!(
                svg,
                "<polyline class=\"{policy}\" stroke-linecap=\"round\" points=\"{path}\"/>"
            );
            if let Some((_, percent)) = points.last() {
                names.push((self.y(*percent), policy));
            }
        }
        self.names(svg, names);
    }

    /// Names at the ends of the lines, pushed apart, each with a stroke of its line.
    fn names(&self, svg: &mut String, mut names: Vec<(f64, &str)>) {
        names.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut free_from = f64::MIN;
        let lowest = HEIGHT - BOTTOM;
        let spare = names.len() as f64 * NAME_HEIGHT;
        for (index, (y, policy)) in names.iter().enumerate() {
            let most = lowest - (spare - index as f64 * NAME_HEIGHT) + NAME_HEIGHT;
            let at = y.min(most).max(free_from);
            free_from = at + NAME_HEIGHT;
            let x = WIDTH - RIGHT + 10.0;
            let _ = writeln!(
                svg,
                "<polyline class=\"{policy}\" points=\"{x},{at:.1} {},{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\">{policy}</text>",
                x + 18.0,
                x + 24.0,
                at + 4.0
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(policy: &'static str, capacity_tokens: u64, hit_ratio: f64) -> Outcome {
        Outcome {
            policy,
            capacity_tokens,
            capacity_blocks: 1,
            block_tokens: 512,
            requests: 1,
            lookups: 1,
            hits: 0,
            hit_ratio,
            stored: 0,
            not_stored: 0,
            ns_per_block: 0.0,
        }
    }

    #[test]
    fn every_policy_has_a_line_and_a_name() {
        let svg = svg(&[
            outcome("lru", 1_500_000, 0.065),
            outcome("lru", 3_100_000, 0.139),
            outcome("opt", 1_500_000, 0.294),
        ]);
        for part in [">lru<", ">opt<", ">1.5M<", ">3.1M<", ">30 %<", "prefers-color-scheme:dark"] {
            assert!(svg.contains(part), "{part}");
        }
        assert_eq!(svg.matches("class=\"lru\"").count(), 2);
        // Elements are closed, one way or the other.
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
    }

    #[test]
    fn names_at_one_height_do_not_cover_each_other() {
        let names = ["lru", "slru", "s3fifo", "gdsf", "opt"];
        let svg = svg(&names.map(|name| outcome(name, 1_000, 0.0)));
        let mut heights: Vec<f64> = names
            .iter()
            .map(|name| {
                let end = svg.find(&format!(">{name}<")).unwrap();
                let from = svg[..end].rfind("y=\"").unwrap() + 3;
                svg[from..end - 1].parse().unwrap()
            })
            .collect();
        heights.sort_by(f64::total_cmp);
        assert!(heights.windows(2).all(|pair| pair[1] - pair[0] >= NAME_HEIGHT - 0.2));
        assert!(*heights.last().unwrap() < HEIGHT);
    }
}
