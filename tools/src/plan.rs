//! Everything that the program takes from swath's plans, and the layouts and data it runs them on.

use swath::algo::{self, ALGOS};
use swath::benchdnn::Problem;
use swath::{Accuracy, ConvPlan, ConvShape, Epilogue, Level, Options, PackedWeights, Scratch, Tensor, Tuning};

use swath_kernels::registry::FAMILIES;

use crate::failure::Outcome;

/// What the user asked of the plan.
#[derive(Clone, Debug)]
pub struct Request {
    /// Level to take kernels from.
    pub level: Level,
    /// Name of the algorithm; `None` lets the plan choose.
    pub algo: Option<String>,
    /// How much rounding error is acceptable.
    pub accuracy: Precision,
    /// Threads to run on.
    pub threads: usize,
}

/// [`Pass`] on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Direction {
    /// The convolution
    #[default]
    Fwd,
    /// The gradient at its input
    #[value(name = "bwd_d")]
    BwdD,
    /// The gradient at its weights
    #[value(name = "bwd_w")]
    BwdW,
}

impl From<Direction> for Pass {
    fn from(d: Direction) -> Self {
        match d {
            Direction::Fwd => Pass::Forward,
            Direction::BwdD => Pass::BackwardData,
            Direction::BwdW => Pass::BackwardWeights,
        }
    }
}

/// [`Accuracy`] on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// Sums of products in f32 alone: no Winograd, no bf16x6
    Exact,
    /// Also bf16x6, and Winograd with tiles of 2x2 and 4x4 outputs
    #[default]
    Default,
    /// Also with tiles of 6x6 outputs
    Fast,
}

impl Precision {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Exact => "exact",
            Precision::Default => "default",
            Precision::Fast => "fast",
        }
    }
}

impl From<Precision> for Accuracy {
    fn from(p: Precision) -> Self {
        match p {
            Precision::Exact => Accuracy::Exact,
            Precision::Default => Accuracy::Default,
            Precision::Fast => Accuracy::Fast,
        }
    }
}

/// Runs `f` where plans use `threads` threads.
pub fn with_threads<R: Send>(threads: usize, f: impl FnOnce() -> Outcome<R> + Send) -> Outcome<R> {
    swath::par::with_threads(threads, f)?
}

/// Names of the algorithms that support a shape, in the order of the table.
pub fn algos(shape: &ConvShape, request: &Request) -> Vec<String> {
    let Options { input, output, .. } = Options::inside_model(shape);
    let request = algo::Request { shape, level: request.level, input, output, accuracy: request.accuracy.into() };
    ALGOS.iter().filter(|a| (a.plan)(&request).is_ok()).map(|a| a.name.to_string()).collect()
}

/// Name of the algorithm that the cost model chooses.
pub fn modelled(shape: &ConvShape, request: &Request) -> Outcome<Option<String>> {
    Ok(Some(plan_by(shape, request, Tuning::Off)?.algo().to_string()))
}

/// Name of the algorithm that a plan takes where a tuning table knows the shape: the user's, or the shipped one.
pub fn tuned(shape: &ConvShape, request: &Request) -> Outcome<Option<String>> {
    let plan = plan_by(shape, request, Tuning::Auto)?;
    let known = plan.candidates().iter().any(|c| c.algo == plan.algo() && c.measured.is_some());
    Ok(known.then(|| plan.algo().to_string()))
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

/// All kernels of this build that this machine can run.
pub fn kernels() -> Vec<KernelRow> {
    use swath_kernels::isa::matrix::MatrixUnit;
    let mut rows = Vec::new();
    for &level in Level::available() {
        let mut add = |family: &str, names: Vec<&str>| {
            rows.extend(names.into_iter().map(|name| KernelRow { name: name.into(), family: family.into(), level }));
        };
        for family in FAMILIES {
            add(family.name, (family.names)(level));
        }
        add("matrix unit", MatrixUnit::beside(level).iter().map(|u| u.kernel()).collect());
    }
    rows
}

/// A planned convolution with packed weights, an input and an output.
pub struct Conv {
    plan: ConvPlan,
    weights: Vec<PackedWeights>,
    x: Tensor,
    y: Tensor,
    scratch: Scratch,
    turn: usize,
}

fn plan(shape: &ConvShape, request: &Request) -> Outcome<ConvPlan> {
    Ok(ConvPlan::new(shape, &options(shape, request))?)
}

/// A plan whose algorithm nobody asks for.
fn plan_by(shape: &ConvShape, request: &Request, tuning: Tuning) -> Outcome<ConvPlan> {
    Ok(ConvPlan::new(shape, &Options { algo: None, tuning, ..options(shape, request) })?)
}

/// What the request asks of a plan, threads included: whatever pool the plan is run from, it takes no more.
fn options(shape: &ConvShape, request: &Request) -> Options {
    Options {
        level: Some(request.level),
        accuracy: request.accuracy.into(),
        algo: request.algo.clone(),
        threads: Some(request.threads),
        ..Options::inside_model(shape)
    }
}

impl Conv {
    /// Plans, packs random weights and fills the input, all uniform in -1..1. With `evict` bytes, holds so many
    /// copies of the weights that together they have at least that size, and each run takes the next.
    pub fn new(problem: &Problem, request: &Request, evict: Option<usize>) -> Outcome<Self> {
        let shape = &problem.shape;
        let plan = plan(shape, request)?;
        let mut random = Random(1);
        let w: Vec<f32> = random.fill(shape.weights().iter().product());
        let packed = plan.pack(&w)?;
        let bytes = (w.len() * size_of::<f32>()).max(64);
        let copies = evict.map_or(1, |evict| evict.div_ceil(bytes).max(1));
        let x = Tensor::new(shape.input(), &random.fill(shape.input().iter().product()))?;
        let x = x.to_layout(plan.options().input)?;
        let y = Tensor::zeros_in(shape.output(), plan.options().output)?;
        Ok(Conv { plan, weights: vec![packed; copies], x, y, scratch: Scratch::default(), turn: 0 })
    }

    /// One forward pass.
    pub fn run(&mut self) -> Outcome<()> {
        self.turn = (self.turn + 1) % self.weights.len();
        let weights = &self.weights[self.turn];
        Ok(self.plan.forward(self.x.as_slice(), weights, Epilogue::none(), self.y.as_mut_slice(), &mut self.scratch)?)
    }

    /// Name of the algorithm that the plan chose.
    pub fn algo(&self) -> String {
        self.plan.algo().to_string()
    }
}

/// What the plan says of its choice.
pub fn explain(problem: &Problem, request: &Request) -> Outcome<String> {
    Ok(plan(&problem.shape, request)?.explain().to_string())
}

/// A batch of images with numbers uniform in -1..1.
pub fn random(dims: [usize; 4]) -> Outcome<Tensor> {
    Ok(Tensor::new(dims, &Random(1).fill(dims.iter().product()))?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_takes_the_threads_that_are_asked_for_whatever_the_pool() {
        let shape = ConvShape::builder([1, 16, 8, 8], [16, 16, 3, 3]).build().unwrap();
        for threads in [1, 2, 3] {
            let request =
                Request { level: swath::cpu().unwrap().level, algo: None, accuracy: Precision::Default, threads };
            assert_eq!(plan(&shape, &request).unwrap().options().threads, Some(threads));
            assert_eq!(plan_by(&shape, &request, Tuning::Off).unwrap().options().threads, Some(threads));
        }
    }
}
