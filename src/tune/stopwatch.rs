//! The candidates of one convolution, ready to be timed: the only place in the library that holds a clock to kernels.

use std::hint::black_box;
use std::time::{Duration, Instant};

use swath_kernels::shape::ConvShape;

use super::race::Sample;
use crate::buffer::floats;
use crate::conv::{ConvPlan, Epilogue, Options, PackedWeights, Scratch};
use crate::error::Result;
use crate::machine;
use crate::tensor::Tensor;

/// Bytes that are read to empty the caches, at most.
const MOST_FLUSHED: usize = 256 << 20;
/// Most runs with cold weights in a round: with them, short runs take longer than the clock's resolution all the same.
const MOST_COLD: usize = 64;

/// One candidate.
struct Candidate {
    plan: ConvPlan,
    /// The first for warm runs, the others one after the other for cold ones.
    weights: Vec<PackedWeights>,
    warm_runs: usize,
}

/// Candidates, and the tensors that they share.
pub(super) struct Bench {
    candidates: Vec<Candidate>,
    x: Tensor,
    y: Tensor,
    scratch: Scratch,
    flushed: Vec<f32>,
}

impl Bench {
    /// Plans and packs every algorithm, and finds how often each must run to take a slice of time. Copies of all packed weights take
    /// so many bytes of memory at most.
    pub(super) fn new(
        shape: &ConvShape,
        options: &Options,
        algos: &[&str],
        slice: Duration,
        memory: usize,
    ) -> Result<Self> {
        let x = numbers(shape.input())?.to_layout(options.input)?;
        let y = Tensor::zeros_in(shape.output(), options.output)?;
        let last = machine::last_cache();
        let flushed = floats(last.saturating_mul(2).min(MOST_FLUSHED) / size_of::<f32>())?;
        let mut bench = Self { candidates: Vec::new(), x, y, scratch: Scratch::new(), flushed };
        let w = numbers(shape.weights())?;
        for &algo in algos {
            let plan = ConvPlan::new(shape, &Options { algo: Some(algo.into()), ..options.clone() })?;
            let weights = vec![plan.pack(w.as_slice())?];
            bench.candidates.push(Candidate { plan, weights, warm_runs: 1 });
            let i = bench.candidates.len() - 1;
            // The first run grows the scratch and fetches the code.
            bench.run(i, 0)?;
            let start = Instant::now();
            bench.run(i, 0)?;
            let once = start.elapsed().max(Duration::from_nanos(50));
            let runs = slice.div_duration_f64(once) as usize;
            let c = &mut bench.candidates[i];
            c.warm_runs = runs.clamp(1, 100_000);
            // One at least, also of weights larger than the last cache, which may keep a part of those of the run before.
            let bytes = c.weights[0].bytes().max(1);
            let copies = runs.clamp(1, MOST_COLD).min((memory / algos.len() / bytes).max(1));
            for _ in 0..copies {
                let copy = c.weights[0].try_clone()?;
                c.weights.push(copy);
            }
        }
        Ok(bench)
    }

    fn run(&mut self, i: usize, weights: usize) -> Result<()> {
        let Candidate { plan, weights: copies, .. } = &self.candidates[i];
        let (x, y) = (self.x.as_slice(), self.y.as_mut_slice());
        plan.forward(x, &copies[weights], Epilogue::none(), y, &mut self.scratch)
    }

    /// Milliseconds of a candidate's runs. Empties the caches before if `flush`, which the first candidate of a round
    /// asks for: each has cold weights of its own, which nobody else brings into a cache.
    pub(super) fn sample(&mut self, i: usize, flush: bool) -> Result<Sample> {
        if flush {
            // A line of 64 bytes holds sixteen.
            black_box(self.flushed.iter().step_by(16).sum::<f32>());
        }
        // Brings back the activations, the code and the warm weights.
        self.run(i, 0)?;
        let runs = self.candidates[i].warm_runs;
        let warm = self.time(i, (0..runs).map(|_| 0))?;
        let copies = self.candidates[i].weights.len();
        let cold = self.time(i, 1..copies)?;
        Ok(Sample { warm, cold })
    }

    /// Mean milliseconds of runs with these copies of the weights.
    fn time(&mut self, i: usize, weights: impl ExactSizeIterator<Item = usize>) -> Result<f64> {
        let runs = weights.len() as f64;
        let start = Instant::now();
        for copy in weights {
            self.run(i, copy)?;
        }
        // An empty batch takes no time that the clock can see; a nanosecond is the least that tables hold.
        Ok((start.elapsed().as_secs_f64() * 1e3 / runs).max(1e-6))
    }
}

/// Floats in -1..1 of no particular order: what they are does not matter, as long as none is zero or denormal for long.
fn numbers(dims: [usize; 4]) -> Result<Tensor> {
    let mut t = Tensor::zeros(dims)?;
    for (i, v) in (0..).zip(t.as_mut_slice()) {
        *v = (u64::wrapping_mul(i, 2_654_435_761) >> 7 & 0x3ff) as f32 / 512.0 - 0.999;
    }
    Ok(t)
}
