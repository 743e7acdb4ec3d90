//! One axis of a map: the inputs of each output, and the outputs of each input.

use core::ops::Range;

use super::{Filter, PadMode};
use crate::shape::ShapeError;

/// An input of an output, or an output of an input, and its weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tap {
    index: u32,
    pub weight: f32,
}

impl Tap {
    /// Where there is no input.
    const NONE: Tap = Tap { index: u32::MAX, weight: 0.0 };

    fn new(index: usize, weight: f64) -> Self {
        Self { index: index as u32, weight: weight as f32 }
    }

    /// Its place; not of [`Tap::NONE`].
    #[inline(always)]
    pub fn index(self) -> usize {
        self.index as usize
    }

    /// Its place, if it has one.
    #[inline(always)]
    pub fn inside(self) -> Option<usize> {
        (self.index != u32::MAX).then_some(self.index as usize)
    }
}

/// The tables of an axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    input: usize,
    output: usize,
    /// Taps of each output.
    each: usize,
    taps: Vec<Tap>,
    /// Where outputs of an input begin among `outputs`.
    starts: Vec<u32>,
    /// Outputs that see an input, in their order.
    outputs: Vec<Tap>,
    /// With one tap each: runs of neighbours, from where, and how many.
    runs: Vec<(Option<usize>, usize)>,
    /// All outputs, cut so that their inputs are few; none where an axis is not complete.
    gathered: Option<Vec<Span>>,
    /// All inputs, cut so that the outputs that see them are few.
    seen: Option<Vec<Span>>,
}

/// Neighbours, and the shortest range that holds what they are made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    pub of: [u32; 2],
    pub from: [u32; 2],
}

impl Span {
    /// The most that a span is made of.
    pub const MOST: usize = 1024;

    /// Cuts `0..n`, each of which is made of a range; none where one of these is too long.
    fn cut(n: usize, range: impl Fn(usize) -> Option<[u32; 2]>) -> Option<Vec<Self>> {
        let mut spans: Vec<Self> = Vec::new();
        for i in 0..n as u32 {
            let [start, end] = range(i as usize)?;
            let joined = spans.last().map(|last| [last.from[0].min(start), last.from[1].max(end)]);
            match (joined, spans.last_mut()) {
                (Some(from), Some(last)) if (from[1] - from[0]) as usize <= Self::MOST => {
                    *last = Self { of: [last.of[0], i + 1], from };
                }
                _ if (end - start) as usize <= Self::MOST => spans.push(Self { of: [i, i + 1], from: [start, end] }),
                _ => return None,
            }
        }
        Some(spans)
    }

    /// The neighbours.
    pub fn of(self) -> Range<usize> {
        self.of[0] as usize..self.of[1] as usize
    }

    /// What they are made of.
    pub fn from(self) -> Range<usize> {
        self.from[0] as usize..self.from[1] as usize
    }
}

impl Axis {
    /// Interpolation to `output` pixels, which a factor has led to if there is one.
    pub fn resize(input: usize, output: usize, factor: Option<f64>, filter: Filter) -> Result<Self, ShapeError> {
        checked_sizes(input, output)?;
        let scale = factor.map_or(input as f64 / output as f64, |f| 1.0 / f);
        let source = |o: usize, align: bool| match (align, output) {
            (false, _) => (o as f64 + 0.5) * scale - 0.5,
            (true, 1) => 0.0,
            (true, _) => o as f64 * (input - 1) as f64 / (output - 1) as f64,
        };
        let clamp = |i: f64| i.clamp(0.0, (input - 1) as f64) as usize;
        Ok(match filter {
            Filter::Nearest | Filter::NearestExact => Self::new(input, 1, output, |o| {
                vec![Tap::new(nearest(o, [input, output], scale as f32, filter).min(input - 1), 1.0)]
            }),
            Filter::Bilinear { align_corners } => Self::new(input, 2, output, |o| {
                let at = source(o, align_corners).max(0.0);
                let (first, part) = (clamp(at.floor()), at - at.floor());
                vec![Tap::new(first, 1.0 - part), Tap::new((first + 1).min(input - 1), part)]
            }),
            Filter::Bicubic { align_corners } => Self::new(input, 4, output, |o| {
                let at = source(o, align_corners);
                let weights = cubic(at - at.floor());
                (0..4).map(|k| Tap::new(clamp(at.floor() + f64::from(k) - 1.0), weights[k as usize])).collect()
            }),
        })
    }

    /// Padding before and after.
    pub fn pad(
        axis: &'static str,
        input: usize,
        [before, after]: [usize; 2],
        mode: PadMode,
    ) -> Result<Self, ShapeError> {
        let padding = before.max(after);
        let most = match mode {
            PadMode::Reflect => input.saturating_sub(1),
            PadMode::Circular => input,
            PadMode::Constant(_) | PadMode::Replicate => usize::MAX,
        };
        if padding > most {
            return Err(ShapeError::PadTooLarge { axis, padding, input, most });
        }
        let output = input.saturating_add(before).saturating_add(after);
        checked_sizes(input, output)?;
        Ok(Self::new(input, 1, output, |o| {
            let i = o as isize - before as isize;
            let n = input as isize;
            if (0..n).contains(&i) {
                return vec![Tap::new(i as usize, 1.0)];
            }
            let from = match mode {
                PadMode::Constant(_) => return vec![Tap::NONE],
                PadMode::Reflect if i < 0 => -i,
                PadMode::Reflect => 2 * (n - 1) - i,
                PadMode::Replicate => i.clamp(0, n - 1),
                PadMode::Circular => i.rem_euclid(n),
            };
            vec![Tap::new(from as usize, 1.0)]
        }))
    }

    fn new(input: usize, each: usize, output: usize, taps_of: impl Fn(usize) -> Vec<Tap>) -> Self {
        let taps: Vec<Tap> = (0..output).flat_map(taps_of).collect();
        // Counted, then sorted into place: outputs of an input keep their order.
        let mut starts = vec![0u32; input + 1];
        taps.iter().filter_map(|t| t.inside()).for_each(|i| starts[i + 1] += 1);
        for i in 0..input {
            starts[i + 1] += starts[i];
        }
        let (mut next, mut outputs) = (starts.clone(), vec![Tap::NONE; starts[input] as usize]);
        for (t, tap) in taps.iter().enumerate() {
            if let Some(i) = tap.inside() {
                outputs[next[i] as usize] = Tap { index: (t / each) as u32, weight: tap.weight };
                next[i] += 1;
            }
        }
        let mut runs: Vec<(Option<usize>, usize)> = Vec::new();
        for tap in taps.iter().filter(|_| each == 1) {
            match (runs.last_mut(), tap.inside()) {
                (Some((Some(start), len)), Some(i)) if *start + *len == i => *len += 1,
                (Some((None, len)), None) => *len += 1,
                (_, i) => runs.push((i, 1)),
            }
        }
        Self { input, output, each, taps, starts, outputs, runs, gathered: None, seen: None }
    }

    /// With spans, unless runs of one tap are long enough to be copied.
    pub fn with_spans(mut self) -> Self {
        if self.each == 1 && self.runs.len() <= self.output / 8 {
            return self;
        }
        let reach = |taps: &[Tap]| {
            let (first, last) = (taps.iter().map(|t| t.index).min()?, taps.iter().map(|t| t.index).max()?);
            (last != u32::MAX).then_some([first, last + 1])
        };
        self.gathered = Span::cut(self.output, |o| reach(self.taps(o)));
        self.seen = Span::cut(self.input, |i| match self.seen_by(i) {
            // Made of nothing, beside what the next one is made of.
            [] => {
                let next = self.outputs.get(self.starts[i] as usize).map_or(self.output as u32, |next| next.index);
                Some([next; 2])
            }
            seen => reach(seen),
        });
        self
    }

    pub fn input(&self) -> usize {
        self.input
    }

    pub fn output(&self) -> usize {
        self.output
    }

    pub fn taps_each(&self) -> usize {
        self.each
    }

    /// Taps of an output.
    #[inline(always)]
    pub fn taps(&self, o: usize) -> &[Tap] {
        &self.taps[o * self.each..(o + 1) * self.each]
    }

    /// Outputs that see input `i`, in order.
    #[inline(always)]
    pub fn seen_by(&self, i: usize) -> &[Tap] {
        &self.outputs[self.starts[i] as usize..self.starts[i + 1] as usize]
    }

    /// Whether every output has its inputs.
    pub fn is_complete(&self) -> bool {
        // Each tap that has an input is among the outputs of one.
        self.outputs.len() == self.taps.len()
    }

    /// Taps of some outputs, one after the other.
    #[inline(always)]
    pub fn taps_of(&self, outputs: Range<usize>) -> &[Tap] {
        &self.taps[outputs.start * self.each..outputs.end * self.each]
    }

    /// All outputs in spans of few inputs, where all have their taps and runs of copies would be short.
    pub fn gathered(&self) -> Option<&[Span]> {
        self.gathered.as_deref()
    }

    /// The same of the inputs, in spans that few outputs see.
    pub fn seen(&self) -> Option<&[Span]> {
        self.seen.as_deref()
    }

    /// Outputs as runs of neighbouring inputs, where each has one tap or none.
    pub fn runs(&self) -> impl Iterator<Item = (Option<usize>, usize)> + '_ {
        self.runs.iter().copied()
    }
}

/// Pixels that an axis may have: tables of one are at most 64 bytes for each, and their numbers fit u32.
const MOST: usize = 1 << 24;

/// Sizes that there are tables for.
fn checked_sizes(input: usize, output: usize) -> Result<(), ShapeError> {
    for (what, axis, size) in [("an input extent", "input axis", input), ("an output extent", "output axis", output)] {
        if size == 0 {
            return Err(ShapeError::Zero { what });
        }
        if size > MOST {
            return Err(ShapeError::Overflow { what: axis, limit: MOST });
        }
    }
    Ok(())
}

/// PyTorch's index of the nearest pixel, whose products are f32: sizes that are the same or double are exempt.
fn nearest(o: usize, [input, output]: [usize; 2], scale: f32, filter: Filter) -> usize {
    if filter == Filter::NearestExact {
        return ((o as f64 + 0.5) * f64::from(scale)) as f32 as usize;
    }
    if output == input {
        o
    } else if output == 2 * input {
        o / 2
    } else {
        (o as f32 * scale) as usize
    }
}

/// Weights of four neighbours, of which the second lies `t` before the point (Keys 1981, a = -3/4).
fn cubic(t: f64) -> [f64; 4] {
    let a = -0.75;
    let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}
