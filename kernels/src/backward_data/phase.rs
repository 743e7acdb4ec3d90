//! The phases of a stride: which taps meet an input position, and the convolution of stride 1 that they are.
//!
//! Input position `i` of an axis meets tap `k` at output `o` where `o * s = i + p - k * d`. With `g = gcd(s, d)`, the
//! positions `i = i0, i0 + s, ...` of one phase meet the taps `k = k0, k0 + s / g, ...`, and from tap to tap `o` moves
//! back by `d / g`. Read from the last tap to the first, that is a convolution of stride 1 and dilation `d / g` over
//! the gradient at the output:
//!
//! ```text
//! stride 2, 3 taps, dilation 1, padding 1          i = 0 2 4 ...   tap 1         o = i / 2
//!                                                  i = 1 3 5 ...   taps 0, 2     o = (i + 1) / 2, (i - 1) / 2
//! ```
//!
//! Where the phase's windows would begin behind the first output, or end before the last one, it sees a part of the
//! gradient alone: padding is never negative.

use crate::shape::ConvShape;
use crate::weights::Taps;

/// Every `stride`-th position of an input axis from `first` on, as outputs of a convolution of stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AxisPhase {
    /// The first position.
    pub first: usize,
    /// How many positions.
    pub outputs: usize,
    /// What meets them; None where nothing does.
    pub window: Option<Window>,
}

/// The window of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Its taps, of the forward kernel's, in ascending order.
    pub taps: Taps,
    /// Step between its taps over the gradient.
    pub dilation: usize,
    /// The part of the gradient that it slides over: first position, and how many.
    pub view: [usize; 2],
    /// Padding before and behind that part.
    pub pad: [usize; 2],
}

/// One axis of the convolution whose data gradient is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub input: usize,
    pub output: usize,
    pub kernel: usize,
    pub stride: usize,
    pub dilation: usize,
    pub before: usize,
}

impl Axis {
    /// The vertical axis.
    pub fn y(s: &ConvShape) -> Self {
        Self { input: s.ih, output: s.oh, kernel: s.kh, stride: s.sh, dilation: s.dh, before: s.pad.top }
    }

    /// The horizontal axis.
    pub fn x(s: &ConvShape) -> Self {
        Self { input: s.iw, output: s.ow, kernel: s.kw, stride: s.sw, dilation: s.dw, before: s.pad.left }
    }

    /// How many phases there are.
    pub fn count(&self) -> usize {
        self.stride.min(self.input)
    }

    /// All phases, by their first position.
    pub fn phases(self) -> impl Iterator<Item = AxisPhase> + Clone {
        (0..self.count()).map(move |first| self.phase(first))
    }

    /// The phase that begins with position `first`.
    pub fn phase(&self, first: usize) -> AxisPhase {
        let outputs = (self.input - first).div_ceil(self.stride);
        AxisPhase { first, outputs, window: self.window(first, outputs) }
    }

    fn window(&self, first: usize, outputs: usize) -> Option<Window> {
        let (s, d) = (self.stride, self.dilation);
        let g = gcd(s, d);
        let place = first + self.before;
        if !place.is_multiple_of(g) {
            return None;
        }
        // The first tap `k` with `k * d` = `place` by the stride.
        let k0 = quotient(place / g, d / g, s / g);
        if k0 >= self.kernel {
            return None;
        }
        let n = (self.kernel - k0).div_ceil(s / g);
        let taps = Taps { first: k0, step: s / g, n };
        // Adjacent taps, where there are no others.
        let dilation = if n == 1 { 1 } else { d / g };
        let reach = (n - 1) * dilation;
        // The output that meets the first position at its first tap; exact, by the choice of `k0`.
        let shift = (place as isize - (k0 * d) as isize) / s as isize;
        let before = reach as isize - shift;
        let (start, before) = if before < 0 { (before.unsigned_abs(), 0) } else { (0, before as usize) };
        let there = self.output.checked_sub(start).filter(|&v| v > 0)?;
        // Windows span `outputs + reach` positions, of which `before` come before the gradient.
        let seen = (outputs + reach).checked_sub(before).filter(|&v| v > 0)?;
        let (view, after) = (there.min(seen), seen.saturating_sub(there));
        Some(Window { taps, dilation, view: [start, view], pad: [before, after] })
    }
}

/// The number `k < m` with `k * a = b` modulo `m`, for `a` without a common factor with `m`: by Euclid's algorithm.
fn quotient(b: usize, a: usize, m: usize) -> usize {
    let (b, m) = (b as i128, m as i128);
    // `x * a` is `r` modulo `m`, in both pairs.
    let (mut last, mut this) = ((m, 0), (a as i128 % m, 1));
    while this.0 > 0 {
        let times = last.0 / this.0;
        (last, this) = (this, (last.0 - times * this.0, last.1 - times * this.1));
    }
    (b % m * last.1.rem_euclid(m) % m) as usize
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::taps_inside;

    #[test]
    fn quotients_are_the_smallest_numbers() {
        for (m, a) in (1..20).flat_map(|m| (1..40).map(move |a| (m, a))).filter(|&(m, a)| gcd(m, a) == 1) {
            for b in 0..50 {
                assert_eq!(Some(quotient(b, a, m)), (0..m).find(|k| k * a % m == b % m), "{b} by {a} modulo {m}");
            }
        }
    }

    /// Which (tap, output) each input position meets, by the phases and by the definition.
    #[test]
    fn phases_meet_what_the_convolution_does() {
        for (input, kernel, stride, dilation, before, after) in [
            (14, 3, 1, 1, 1, 1),
            (15, 3, 2, 1, 1, 0),
            (9, 1, 2, 1, 0, 0),
            (11, 5, 3, 2, 7, 2),
            (20, 3, 4, 6, 2, 3),
            (6, 4, 6, 4, 9, 9),
            (3, 2, 2, 1, 3, 3),
            (2, 2, 7, 3, 4, 1),
            (30, 3, 1, 5, 12, 0),
        ] {
            let output = (input + before + after - dilation * (kernel - 1) - 1) / stride + 1;
            let axis = Axis { input, output, kernel, stride, dilation, before };
            let mut want = vec![Vec::new(); input];
            for o in 0..output {
                for k in taps_inside(o, stride, dilation, before, kernel, input) {
                    want[o * stride + k * dilation - before].push((k, o));
                }
            }
            let mut got = vec![Vec::new(); input];
            let mut covered = 0;
            for phase in axis.phases() {
                covered += phase.outputs;
                let Some(w) = phase.window else { continue };
                let taps = w.taps;
                assert_eq!(w.view[1] + w.pad[0] + w.pad[1] - (taps.n - 1) * w.dilation, phase.outputs);
                assert!(w.view[0] + w.view[1] <= output);
                for t in 0..phase.outputs {
                    for j in taps_inside(t, 1, w.dilation, w.pad[0], taps.n, w.view[1]) {
                        let o = w.view[0] + t + j * w.dilation - w.pad[0];
                        got[phase.first + t * stride].push((taps.first + (taps.n - 1 - j) * taps.step, o));
                    }
                }
            }
            assert_eq!(covered, input);
            for (i, (got, want)) in got.iter_mut().zip(&mut want).enumerate() {
                got.sort_unstable();
                want.sort_unstable();
                assert_eq!(got, want, "position {i} of {axis:?}");
            }
        }
    }
}
