//! Everything that the program takes from swath's plans, and the layouts and data it runs them on.

use swath::algo::{self, ALGOS, Algo, Pass};
use swath::benchdnn::Problem;
use swath::{
    Accuracy, ConvBackwardData, ConvBackwardWeights, ConvPlan, ConvShape, Core, Epilogue, Layout, Level, Options,
    PackedWeights, Scratch, Tensor, Tuning,
};

use swath_kernels::registry::FAMILIES;

use crate::failure::Outcome;

/// What the user asked of the plan.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is computed.
    pub pass: Pass,
    /// Level to take kernels from.
    pub level: Level,
    /// How input and output lie.
    pub layout: Activations,
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

/// How input and output lie, on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Activations {
    /// As inside a model: blocks of 16 channels, or NCHW where there are fewer
    #[default]
    Model,
    /// NCHW in and out
    Nchw,
    /// NHWC in and out
    Nhwc,
    /// Blocks of 16 channels in and out
    Blocked,
}

impl Activations {
    /// Options that are the defaults but for these layouts.
    pub fn options(self, shape: &ConvShape) -> Options {
        match self {
            Activations::Model => Options::inside_model(shape),
            Activations::Nchw => Options::default(),
            Activations::Nhwc => Options { input: Layout::Nhwc, output: Layout::Nhwc, ..Options::default() },
            Activations::Blocked => Options::blocked(),
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
    let pass = request.pass;
    let Options { input, output, .. } = request.layout.options(shape);
    let request = algo::Request::dense(shape, Core::here(request.level), [input, output], request.accuracy.into());
    let supports = |a: &&Algo| match pass {
        Pass::Forward => (a.plan)(&request).is_ok(),
        Pass::BackwardData => a.data(&request).is_ok(),
        Pass::BackwardWeights => a.weights(&request).is_ok(),
    };
    ALGOS.iter().filter(supports).map(|a| a.name.to_string()).collect()
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
        let mut add = |family: &str, names: &[&str]| {
            rows.extend(names.iter().map(|&name| KernelRow { name: name.into(), family: family.into(), level }));
        };
        for family in FAMILIES {
            add(family.name, (family.names)(level));
        }
        add("matrix unit", &MatrixUnit::beside(level).iter().map(|u| u.kernel()).collect::<Vec<_>>());
    }
    rows
}

/// A pass of a convolution, planned, with its weights and tensors.
pub struct Conv {
    plan: Plan,
    x: Tensor,
    y: Tensor,
    scratch: Scratch,
    turn: usize,
}

/// The plan, and packed weights or the gradient at them.
#[allow(clippy::large_enum_variant)] // one a convolution
enum Plan {
    Forward(ConvPlan, Vec<PackedWeights>),
    Data(ConvBackwardData, Vec<PackedWeights>),
    Weights(ConvBackwardWeights, Tensor),
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
        ..request.layout.options(shape)
    }
}

impl Conv {
    /// Plans, packs random weights and fills the tensors, all uniform in -1..1. With `evict` bytes, holds so many
    /// copies of the weights that together they have at least that size, and each run takes the next.
    pub fn new(problem: &Problem, request: &Request, evict: Option<usize>) -> Outcome<Self> {
        let shape = &problem.shape;
        let options = options(shape, request);
        let mut random = Random(1);
        let w = random.tensor(shape.weights())?;
        let bytes = size_of_val(w.as_slice()).max(64);
        let copies = evict.map_or(1, |evict| evict.div_ceil(bytes).max(1));
        let plan = match request.pass {
            Pass::Forward => {
                let plan = ConvPlan::new(shape, &options)?;
                let packed = plan.pack(w.as_slice())?;
                Plan::Forward(plan, several(packed, copies)?)
            }
            Pass::BackwardData => {
                let plan = ConvBackwardData::new(shape, &options)?;
                let packed = plan.pack(w.as_slice())?;
                Plan::Data(plan, several(packed, copies)?)
            }
            Pass::BackwardWeights => Plan::Weights(ConvBackwardWeights::new(shape, &options)?, w),
        };
        let mut tensor = |dims: [usize; 4], layout| -> Outcome<Tensor> { Ok(random.tensor(dims)?.to_layout(layout)?) };
        let (x, y) = (tensor(shape.input(), options.input)?, tensor(shape.output(), options.output)?);
        Ok(Conv { plan, x, y, scratch: Scratch::default(), turn: 0 })
    }

    /// One run.
    pub fn run(&mut self) -> Outcome<()> {
        self.turn += 1;
        let (x, y, scratch) = (&mut self.x, &mut self.y, &mut self.scratch);
        match &mut self.plan {
            Plan::Forward(plan, weights) => {
                let weights = &weights[self.turn % weights.len()];
                plan.forward(x.as_slice(), weights, Epilogue::none(), y.as_mut_slice(), scratch)?;
            }
            Plan::Data(plan, weights) => {
                plan.run(y.as_slice(), &weights[self.turn % weights.len()], x.as_mut_slice(), scratch)?;
            }
            Plan::Weights(plan, dw) => plan.run(x.as_slice(), y.as_slice(), dw.as_mut_slice(), None, scratch)?,
        }
        Ok(())
    }

    /// Name of the algorithm that the plan chose.
    pub fn algo(&self) -> String {
        let name = match &self.plan {
            Plan::Forward(plan, _) => plan.algo(),
            Plan::Data(plan, _) => plan.algo(),
            Plan::Weights(plan, _) => plan.algo(),
        };
        name.to_string()
    }
}

/// So many copies of packed weights.
fn several(packed: PackedWeights, copies: usize) -> Outcome<Vec<PackedWeights>> {
    let mut all = vec![packed];
    for _ in 1..copies {
        all.push(all[0].try_clone()?);
    }
    Ok(all)
}

/// What the plan says of its choice.
pub fn explain(problem: &Problem, request: &Request) -> Outcome<String> {
    let (shape, options) = (&problem.shape, options(&problem.shape, request));
    Ok(match request.pass {
        Pass::Forward => ConvPlan::new(shape, &options)?.explain().to_string(),
        Pass::BackwardData => ConvBackwardData::new(shape, &options)?.explain().to_string(),
        Pass::BackwardWeights => ConvBackwardWeights::new(shape, &options)?.explain().to_string(),
    })
}

/// A batch of images with numbers uniform in -1..1.
pub fn random(dims: [usize; 4]) -> Outcome<Tensor> {
    Random(1).tensor(dims)
}

/// Numbers uniform in -1..1: a multiplicative congruential generator is random enough for timing, and needs no crate.
struct Random(u64);

impl Random {
    fn tensor(&mut self, dims: [usize; 4]) -> Outcome<Tensor> {
        let mut t = Tensor::zeros(dims)?;
        for v in t.as_mut_slice() {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *v = (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        }
        Ok(t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_takes_the_threads_that_are_asked_for_whatever_the_pool() {
        let shape = ConvShape::builder([1, 16, 8, 8], [16, 16, 3, 3]).build().unwrap();
        for threads in [1, 2, 3] {
            let level = swath::cpu().unwrap().level;
            let request = Request {
                pass: Pass::Forward,
                level,
                layout: Activations::Model,
                algo: None,
                accuracy: Precision::Default,
                threads,
            };
            assert_eq!(options(&shape, &request).threads, Some(threads));
            assert_eq!(plan_by(&shape, &request, Tuning::Off).unwrap().options().threads, Some(threads));
        }
    }
}
