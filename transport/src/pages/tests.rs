use proptest::prelude::*;

use super::model::places;
use super::*;

fn model(pages: &Pages) -> Vec<u64> {
    places(pages.layer_starts(), pages.layer_runs())
}

fn run() -> impl Strategy<Value = Run> {
    (0u64..200, 0u64..9, 0u64..20, 0u32..5).prop_map(|(offset, bytes, stride, count)| Run {
        offset,
        bytes,
        stride,
        count,
    })
}

fn lists() -> impl Strategy<Value = (Vec<Run>, Vec<u64>)> {
    (prop::collection::vec(run(), 0..6), prop::collection::vec(0u64..600, 1..4))
}

proptest! {
    #[test]
    fn a_list_is_its_bytes_in_order((runs, layers) in lists()) {
        let pages = Pages::runs(runs.clone()).unwrap().layers(layers.clone()).unwrap();
        let expected = places(&layers, &runs);
        prop_assert_eq!(model(&pages), expected.clone());
        prop_assert_eq!(pages.bytes(), expected.len() as u64);
        prop_assert_eq!(pages.end(), expected.iter().max().map_or(0, |last| last + 1));
        let mut sorted = expected.clone();
        sorted.sort_unstable();
        sorted.dedup();
        prop_assert_eq!(pages.overlaps(), sorted.len() < expected.len());
    }

    #[test]
    fn a_plan_pairs_every_byte_once(
        (runs, layers) in lists(), (other, starts) in lists(), len_max in 1u64..40, begin: u64,
    ) {
        let local = Pages::runs(runs).unwrap().layers(layers).unwrap();
        // The same number of bytes: what the other list has too much is cut off, byte by byte.
        let remote = Pages::runs(other).unwrap().layers(starts).unwrap();
        let len = local.bytes().min(remote.bytes()) as usize;
        let cut = |pages: &Pages| {
            Pages::ranges(model(pages)[..len].iter().map(|at| *at..*at + 1)).unwrap()
        };
        let whole = |pages: Pages| if pages.bytes() as usize == len { pages } else { cut(&pages) };
        let plan = Plan::new(whole(local), whole(remote)).unwrap();
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for piece in plan.pieces(len_max) {
            prop_assert!(piece.len > 0 && piece.len <= len_max);
            from.extend(piece.local..piece.local + piece.len);
            to.extend(piece.remote..piece.remote + piece.len);
        }
        prop_assert_eq!(from, model(plan.local()));
        prop_assert_eq!(to, model(plan.remote()));
        // A walk may begin anywhere.
        let begin = begin % (plan.bytes() + 1);
        let mut cursor = Cursor::at(&plan, begin);
        let rest = std::iter::from_fn(|| cursor.next(&plan, 1));
        prop_assert!(rest.eq(plan.pieces(1).skip(begin as usize)));
    }

    #[test]
    fn a_page_table_is_run_length_encoded(indices in prop::collection::vec(0u64..64, 0..40)) {
        let pages = Pages::table(4, indices.clone()).unwrap();
        let expected: Vec<u64> = indices.iter().flat_map(|page| page * 4..page * 4 + 4).collect();
        prop_assert_eq!(model(&pages), expected);
    }
}

#[test]
fn layers_cost_no_more_to_describe_than_one_offset_each() {
    let pages = Pages::table(16 << 10, (0..512).map(|page| page * 2)).unwrap();
    let layers = pages.layers((0..80).map(|layer| layer << 30)).unwrap();
    assert_eq!((layers.layer_runs().len(), layers.layer_starts().len()), (1, 80));
    assert_eq!(layers.pieces(), 512 * 80);
    assert!(!layers.overlaps());
}

#[test]
fn layers_may_interleave() {
    // Page by page, all layers of a page together.
    let pages = Pages::strided(0, 8, 8 * 4, 16).unwrap();
    assert!(!pages.layers([0, 8, 16, 24]).unwrap().overlaps());
    assert!(pages.layers([0, 8, 16, 23]).unwrap().overlaps());
}

#[test]
fn what_cannot_be_addressed_is_refused() {
    let beyond = |it: Result<Pages, PagesError>| matches!(it, Err(PagesError::Beyond { .. }));
    assert!(beyond(Pages::strided(u64::MAX, 1, 1, 1)));
    assert!(beyond(Pages::strided(0, 1, u64::MAX, 3)));
    assert!(beyond(Pages::strided(1, u64::MAX, 0, 1)));
    assert!(beyond(Pages::table(1 << 40, [1 << 30])));
    assert!(beyond(Pages::ranges([std::ops::Range { start: 2, end: 1 }])));
    assert!(beyond(Pages::strided(0, 1, 1, 1).unwrap().layers([u64::MAX])));
    assert!(beyond(Pages::strided(0, 1 << 62, 0, 1 << 10)));
    let many = Pages::strided(0, 1, 2, u32::MAX).unwrap_err();
    assert_eq!(
        many.to_string(),
        "more than 4194304 pieces in one list of pages; use several transfers"
    );
}

#[test]
fn sides_must_be_equally_long() {
    let side = |bytes| Pages::strided(0, bytes, 0, 1).unwrap();
    let error = Plan::new(side(3), side(4)).unwrap_err();
    assert_eq!(error.to_string(), "3 bytes on this side, 4 on the peer's; both must be equal");
}

#[test]
fn nothing_is_a_list_too() {
    let none = Pages::ranges([]).unwrap();
    assert_eq!((none.bytes(), none.end(), none.pieces()), (0, 0, 0));
    assert!(none.layers([]).unwrap().layer_starts().is_empty());
    assert_eq!(Plan::new(none.clone(), none).unwrap().pieces(1).count(), 0);
}
