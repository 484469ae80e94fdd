//! What room in a tier below memory costs.

/// The worth ([`Policy::worth`](super::Policy::worth)) of blocks whose turn it was to leave a tier of late: a tenth
/// of them was worth less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Price(Option<f32>);

impl Price {
    /// How far one block that leaves moves the price, as a share of it.
    const STEP: f32 = 0.01;
    /// A block is written again only if it is worth so many times the price.
    const AGAIN: f32 = 8.0;

    /// Blocks of these worths came up together.
    pub fn learn_all(&mut self, worths: &[f32]) {
        if self.0.is_none() {
            let mut sorted = worths.to_vec();
            sorted.sort_by(f32::total_cmp);
            self.0 = sorted.get(sorted.len() / 10).copied();
        } else {
            worths.iter().for_each(|worth| self.learn(*worth));
        }
    }

    /// A block of this worth came up.
    pub fn learn(&mut self, worth: f32) {
        let price = self.0.filter(|price| *price > 0.0).unwrap_or(worth);
        let step = if worth < price { 1.0 - 0.9 * Self::STEP } else { 1.0 + 0.1 * Self::STEP };
        self.0 = Some(price * step);
    }

    /// Whether a block of this worth is worth its room.
    #[must_use]
    pub fn is_met(&self, worth: f32) -> bool {
        self.0.is_none_or(|price| worth >= price)
    }

    /// How much a block of this worth is worth being written again, so that it stays: from 1 on it is; 0
    /// while nothing has left.
    #[must_use]
    pub fn again(&self, worth: f32) -> f32 {
        match self.0 {
            Some(price) if worth > 0.0 => worth / (Self::AGAIN * price).max(f32::MIN_POSITIVE),
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_set_it_at_once() {
        let mut price = Price::default();
        price.learn_all(&[]);
        assert!(price.is_met(0.0));
        let mut many: Vec<f32> = (0..100).map(|worth| worth as f32).collect();
        many.rotate_left(50);
        price.learn_all(&many);
        assert!(price.is_met(10.0) && !price.is_met(9.9), "{price:?}");
    }

    #[test]
    fn a_tenth_of_what_leaves_is_below_it() {
        let mut price = Price::default();
        assert!(price.is_met(0.0) && price.again(1e9) == 0.0, "nothing has left");
        price.learn(0.0);
        for nth in 0..100_000 {
            price.learn(((nth * 7_919) % 1_000) as f32);
        }
        assert!(price.is_met(130.0) && !price.is_met(70.0), "{price:?}");
        assert!(price.again(1_100.0) >= 1.0 && price.again(500.0) < 1.0, "{price:?}");
        assert_eq!(price.again(0.0), 0.0);
    }
}
