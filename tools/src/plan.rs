//! ADAPTER: everything that the program takes from swath's plans stands here, and nowhere else in `tools/`.
//!
//! What is marked TODO(plan) works on what `swath::conv` has today and is to be replaced by the real thing.

use swath::benchdnn::Problem;
use swath::{ConvPlan, ConvShape, Epilogue, Layout, Level, Options, PackedWeights, Scratch};

use crate::failure::{Failure, Outcome};

/// What the user asked of the plan.
#[derive(Clone, Debug)]
pub struct Request {
    /// Level to take kernels from.
    pub level: Level,
    /// Name of the algorithm; `None` lets the plan choose.
    pub algo: Option<String>,
    /// Threads to run on.
    pub threads: usize,
}

/// Runs `f` where plans use `threads` threads.
pub fn with_threads<R>(threads: usize, f: impl FnOnce() -> Outcome<R>) -> Outcome<R> {
    // TODO(plan): enter a pool of `threads` threads of `swath::par` and run `f` in it.
    if threads != 1 {
        return Err(Failure::new(format!("{threads} threads are not possible yet; --threads 1 is")));
    }
    f()
}

/// Names of the algorithms that support a shape, in the order in which a plan tries them.
pub fn algos(_shape: &ConvShape, _level: Level) -> Vec<String> {
    // TODO(plan): the names of `swath::algo::ALGOS` whose `supports` holds.
    vec!["reference".into()]
}

/// A row of the kernel table.
pub struct KernelRow {
    /// `conv_f32_14x32_avx512`
    pub name: String,
    /// What it computes.
    pub family: String,
    /// The level that it needs.
    pub level: Level,
}

/// All kernels of this build.
pub fn kernels() -> Vec<KernelRow> {
    // TODO(plan): the rows of the tables of `swath_kernels`.
    Vec::new()
}

/// A planned convolution with packed weights, an input and an output.
pub struct Conv {
    plan: ConvPlan,
    weights: Vec<PackedWeights>,
    x: Vec<f32>,
    y: Vec<f32>,
    scratch: Scratch,
    turn: usize,
}

/// Layers with fewer input channels than this read NCHW; the block has as many.
const BLOCKED_FROM: usize = 16;

fn plan(shape: &ConvShape, request: &Request) -> Outcome<ConvPlan> {
    let mut options = Options::blocked();
    if shape.ic < BLOCKED_FROM {
        options.input = Layout::Nchw;
    }
    options.level = Some(request.level);
    options.algo.clone_from(&request.algo);
    Ok(ConvPlan::new(shape, &options)?)
}

impl Conv {
    /// Plans, packs random weights and fills the input, all uniform in -1..1. With `evict` bytes, holds so many
    /// copies of the weights that together they have at least that size, and each run takes the next.
    pub fn new(problem: &Problem, request: &Request, evict: Option<usize>) -> Outcome<Self> {
        let shape = &problem.shape;
        let input = if shape.ic < BLOCKED_FROM { Layout::Nchw } else { Layout::Blocked };
        let plan = plan(shape, request)?;
        let mut random = Random(1);
        let w: Vec<f32> = random.fill(shape.weights().iter().product());
        let packed = plan.pack(&w)?;
        let bytes = (w.len() * size_of::<f32>()).max(64);
        let copies = evict.map_or(1, |evict| evict.div_ceil(bytes).max(1));
        let mut nchw = random.fill(Layout::Nchw.len(shape.input()));
        if input != Layout::Nchw {
            let mut x = vec![0.0; input.len(shape.input())];
            swath_kernels::layout::reorder(Layout::Nchw, &nchw, input, &mut x, shape.input());
            nchw = x;
        }
        Ok(Conv {
            plan,
            weights: vec![packed; copies],
            x: nchw,
            y: vec![0.0; Layout::Blocked.len(shape.output())],
            scratch: Scratch::default(),
            turn: 0,
        })
    }

    /// One forward pass.
    pub fn run(&mut self) -> Outcome<()> {
        self.turn = (self.turn + 1) % self.weights.len();
        let weights = &self.weights[self.turn];
        Ok(self.plan.forward(&self.x, weights, Epilogue::default(), &mut self.y, &mut self.scratch)?)
    }

    /// Name of the algorithm that the plan chose.
    pub fn algo(&self) -> String {
        // TODO(plan): self.plan.algo().to_string()
        "reference".into()
    }
}

/// What the plan says of its choice.
pub fn explain(problem: &Problem, request: &Request) -> Outcome<String> {
    let _plan = plan(&problem.shape, request)?;
    // TODO(plan): Ok(_plan.explain().to_string())
    Ok(format!("algorithm   reference, at level {}: the only one so far", request.level))
}

/// Numbers uniform in -1..1: a multiplicative congruential generator is random enough for timing, and needs no crate.
struct Random(u64);

impl Random {
    fn fill(&mut self, len: usize) -> Vec<f32> {
        (0..len)
            .map(|_| {
                self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }
}
