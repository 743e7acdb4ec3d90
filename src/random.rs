//! Random numbers that follow from a key alone, so that results do not depend on threads, order or the version of a
//! crate.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

/// A stream of random numbers for a key, such as `[seed, epoch, index]`.
///
/// The generator is xoshiro256++ (Blackman and Vigna 2018); what is made of its bits is spelled out here, so that a key
/// means the same numbers forever.
///
/// ```
/// use swath::Random;
/// let mut a = Random::new(&[7, 0, 42]);
/// let mut b = Random::new(&[7, 0, 42]);
/// assert_eq!(a.below(1000), b.below(1000));
/// assert!((0.0..1.0).contains(&a.unit()));
/// ```
#[derive(Clone, Debug)]
pub struct Random(Xoshiro256PlusPlus);

impl Random {
    /// The stream of a key. Keys that differ in any number, or in their length, give unrelated streams.
    pub fn new(key: &[u64]) -> Self {
        let start = key.len() as u64;
        Self(Xoshiro256PlusPlus::seed_from_u64(key.iter().fold(start, |state, &k| mixed(state ^ mixed(k)))))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `0..1`, a multiple of 2^-24.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in `low..high`.
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..n`; 0 if `n` is 0. The bias is below `n / 2^64`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Whether an event of this probability happens.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// A number of the standard normal distribution (Box and Muller 1958).
    pub fn normal(&mut self) -> f32 {
        // From above 0, so that the logarithm is finite.
        let u = ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let v = (self.bits() >> 11) as f64 / (1u64 << 53) as f64;
        ((-2.0 * u.ln()).sqrt() * (core::f64::consts::TAU * v).cos()) as f32
    }

    /// A number of the distribution Beta(`alpha`, `alpha`), by Jöhnk's method (1964), which suits `alpha` up to about 4.
    pub fn beta(&mut self, alpha: f64) -> f32 {
        // Of a hundred tries one is taken even at 4; a half is the mean.
        for _ in 0..10_000 {
            let [u, v] = [(); 2].map(|()| ((self.bits() >> 11) as f64 / (1u64 << 53) as f64).powf(1.0 / alpha));
            if u + v <= 1.0 && u + v > 0.0 {
                return (u / (u + v)) as f32;
            }
        }
        0.5
    }

    /// The numbers `0..n` in random order (Fisher and Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): a bijection that mixes all bits.
fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_means_the_same_numbers_forever() {
        let mut r = Random::new(&[1, 2, 3]);
        let first = [r.bits(), r.bits()];
        assert_eq!(first, [FIRST.0, FIRST.1]);
        let keys: [&[u64]; 5] = [&[1, 2], &[2, 1], &[1, 2, 0], &[0, 1, 2], &[]];
        let mut all: Vec<u64> = keys.iter().map(|k| Random::new(k).bits()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), keys.len());
    }

    /// The first bits of the key `[1, 2, 3]`.
    const FIRST: (u64, u64) = (9796737452336538355, 1298671556487949909);

    #[test]
    fn distributions() {
        let mut r = Random::new(&[5]);
        let n = 20_000;
        let mean = |f: &mut dyn FnMut() -> f32| (0..n).map(|_| f64::from(f())).sum::<f64>() / f64::from(n);
        assert!((mean(&mut || r.unit()) - 0.5).abs() < 0.01);
        assert!(mean(&mut || r.normal()).abs() < 0.03);
        assert!((mean(&mut || r.normal().powi(2)) - 1.0).abs() < 0.05);
        assert!((mean(&mut || r.range(-2.0, 4.0)) - 1.0).abs() < 0.06);
        // The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
        for alpha in [0.2, 1.0, 2.0] {
            let variance = mean(&mut || (r.beta(alpha) - 0.5).powi(2));
            assert!((variance - 0.25 / (2.0 * alpha + 1.0)).abs() < 0.01, "{alpha}: {variance}");
        }
        assert!((mean(&mut || r.below(10) as f32) - 4.5).abs() < 0.1);
        assert_eq!(r.below(0), 0);
        assert!(!r.chance(0.0) && r.chance(1.0));
    }

    #[test]
    fn permutations_have_every_number_once_and_every_order() {
        let mut seen = std::collections::HashSet::new();
        for key in 0..200 {
            let p = Random::new(&[key]).permutation(3);
            let mut sorted = p.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2]);
            seen.insert(p);
        }
        assert_eq!(seen.len(), 6);
        assert!(Random::new(&[0]).permutation(0).is_empty());
    }
}
