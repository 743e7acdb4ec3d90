//! Convolution plans: a shape, an algorithm, packed weights.
//!
//! Plan once, run often. A plan picks an algorithm from [`ALGOS`]: the one that the
//! caller asks for, else the one that a tuning table measured as the fastest ([`tune`]), else the one that the cost
//! model predicts to be fastest. It never times anything.
//!
//! ```
//! use swath::{Activation, ConvPlan, ConvShape, Epilogue, Options, Scratch};
//!
//! let shape = ConvShape::builder([1, 3, 32, 32], [16, 3, 3, 3]).padding(1).build()?;
//! let plan = ConvPlan::new(&shape, &Options::default())?;
//! let weights = plan.pack(&vec![0.1; 16 * 3 * 3 * 3])?;
//!
//! let (x, bias) = (vec![1.0; 3 * 32 * 32], vec![-1.0; 16]);
//! let mut y = vec![0.0; 16 * 32 * 32];
//! plan.forward(&x, &weights, Epilogue::bias(&bias).relu(), &mut y, &mut Scratch::default())?;
//! assert!((y[33] - 1.7).abs() < 1e-5); // 27 taps of 0.1, minus 1
//! println!("{}", plan.explain());
//! # Ok::<(), swath::Error>(())
//! ```

use core::fmt;

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::shape::ConvShape;

use crate::algo::{self, ALGOS, Accuracy, Kernel, Request, Work};
use crate::buffer::Buffer;
use crate::error::{Error, Result, check_len};
use crate::par;
use crate::tune::{self, Figures, Tuning};

pub use swath_kernels::epilogue::Epilogue;

/// How a plan is made. The default is NCHW in and out, the machine's level, the tuned or else the modelled choice, and
/// all threads of where a run is called from ([`par`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Layout of the input.
    pub input: Layout,
    /// Layout of the output, and of a residual.
    pub output: Layout,
    /// Level to take kernels from; `None` is the machine's, lowered by `SWATH_LEVEL`.
    pub level: Option<Level>,
    /// Name of the algorithm, from [`ALGOS`]; `None` lets the plan choose.
    pub algo: Option<String>,
    /// How much rounding error is acceptable. A named algorithm that is less accurate is refused.
    pub accuracy: Accuracy,
    /// Most threads of a run; `None` is all of the current rayon pool's, and outside of one the process's ([`par`]); `Some(1)`
    /// is the calling thread alone.
    pub threads: Option<usize>,
    /// Measurements to choose by; the default is the user's tuning file, then the table that ships with this crate.
    pub tuning: Tuning,
}

impl Options {
    /// Blocked activations in and out, as inside a model.
    pub fn blocked() -> Self {
        Self { input: Layout::Blocked, output: Layout::Blocked, ..Self::default() }
    }

    /// The layouts that a model uses for this shape: blocked, but NCHW input where it has fewer channels than a block.
    pub fn inside_model(shape: &ConvShape) -> Self {
        let stem = shape.ic < swath_kernels::layout::BLOCK;
        Self { input: if stem { Layout::Nchw } else { Layout::Blocked }, ..Self::blocked() }
    }
}

/// Memory that runs of any plans may use and reuse; it grows to the largest plan's need and stays.
#[derive(Debug, Default)]
pub struct Scratch(Buffer);

impl Scratch {
    /// No memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn take(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len {
            self.0 = Buffer::zeros(len);
        }
        &mut self.0[..len]
    }
}

/// Weights in the order that one plan's kernels read them. Made by [`ConvPlan::pack`]; any plan of the same weight
/// extents, groups, algorithm, level and layouts can use them.
#[derive(Clone, Debug)]
pub struct PackedWeights {
    data: Buffer,
    key: PackKey,
}

impl PackedWeights {
    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }
}

/// What the order of packed weights depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PackKey {
    algo: &'static str,
    weights: [usize; 4],
    groups: usize,
    level: Level,
    layouts: [Layout; 2],
    len: usize,
}

/// One algorithm as a plan saw it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Name, from [`ALGOS`].
    pub algo: &'static str,
    /// Predicted milliseconds on one thread, or why it does not support the shape.
    pub predicted: Result<f64, String>,
    /// What a tuning table measured, on the threads that the plan is for.
    pub measured: Option<Figures>,
}

/// A planned convolution.
#[derive(Clone, Debug)]
pub struct ConvPlan {
    shape: ConvShape,
    options: Options,
    level: Level,
    algo: &'static str,
    kernel: Kernel,
    /// Milliseconds on one thread, by the cost model.
    predicted: f64,
    candidates: Vec<Candidate>,
    reason: String,
}

impl ConvPlan {
    /// Plans. Never times anything.
    ///
    /// # Errors
    /// For a level that this machine lacks, and an algorithm that is unknown or does not support the shape.
    pub fn new(shape: &ConvShape, options: &Options) -> Result<Self> {
        let level = crate::cpu()?.lowered(options.level.unwrap_or(crate::cpu()?.level))?.level;
        let request =
            Request { shape, level, input: options.input, output: options.output, accuracy: options.accuracy };
        let mut candidates = Vec::with_capacity(ALGOS.len());
        let mut kernels = Vec::with_capacity(ALGOS.len());
        for algo in ALGOS {
            let planned = (algo.plan)(&request);
            let predicted = match &planned {
                Ok(k) => Ok(algo::predict(algo.name, level, &Work::new(shape, k))),
                Err(why) => Err(why.clone()),
            };
            candidates.push(Candidate { algo: algo.name, predicted, measured: None });
            kernels.push(planned.ok());
        }
        let (chosen, reason) = choose(shape, level, options, &mut candidates)?;
        let (algo, predicted) =
            (candidates[chosen].algo, candidates[chosen].predicted.clone().unwrap_or(f64::INFINITY));
        let kernel = kernels.swap_remove(chosen).expect("only what supports the shape is chosen");
        Ok(Self { shape: *shape, options: options.clone(), level, algo, kernel, predicted, candidates, reason })
    }

    /// The geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The options that the plan was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The instruction-set level.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Name of the chosen algorithm, from [`ALGOS`].
    pub fn algo(&self) -> &'static str {
        self.algo
    }

    /// Name of the microkernel that does most of the work.
    pub fn kernel(&self) -> &'static str {
        self.kernel.name()
    }

    /// Every algorithm, with its prediction or why it does not support the shape.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// What was chosen, from which candidates, and why.
    pub fn explain(&self) -> Explanation<'_> {
        Explanation(self)
    }

    /// Floats of scratch that [`ConvPlan::forward`] takes from its [`Scratch`] when run on `threads` threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        self.kernel.scratch_len(threads)
    }

    fn pack_key(&self) -> PackKey {
        let len = self.kernel.packed_len();
        let layouts = [self.options.input, self.options.output];
        let (weights, groups) = (self.shape.weights(), self.shape.groups);
        PackKey { algo: self.algo, weights, groups, level: self.level, layouts, len }
    }

    /// Packs weights `[oc, ic / groups, kh, kw]` (PyTorch's order) for this plan.
    ///
    /// # Errors
    /// For a wrong length.
    pub fn pack(&self, w: &[f32]) -> Result<PackedWeights> {
        check_len("the weights", w.len(), self.shape.weights().iter().product())?;
        let mut data = Buffer::zeros(self.kernel.packed_len());
        self.kernel.pack(w, &mut data);
        Ok(PackedWeights { data, key: self.pack_key() })
    }

    /// Runs the convolution: `y = activation(conv(x, weights) + bias + residual)`.
    ///
    /// `x` and `y` are in the layouts of the plan's options; channels that pad a blocked output become zero. The
    /// result is the same bits for any number of threads.
    ///
    /// # Errors
    /// For wrong lengths, and weights that were packed for something else; never otherwise.
    pub fn forward(
        &self,
        x: &[f32],
        weights: &PackedWeights,
        epilogue: Epilogue<'_>,
        y: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let (s, o) = (&self.shape, &self.options);
        let y_len = o.output.len(s.output());
        check_len("the input", x.len(), o.input.len(s.input()))?;
        check_len("the output", y.len(), y_len)?;
        check_len("the bias", epilogue.bias.map_or(s.oc, <[f32]>::len), s.oc)?;
        check_len("the residual", epilogue.residual.map_or(y_len, <[f32]>::len), y_len)?;
        if weights.key != self.pack_key() {
            return Err(Error::Weights {
                packed: format!("{:?}", weights.key),
                expected: format!("{:?}", self.pack_key()),
            });
        }
        let executor = par::executor(o.threads, self.predicted);
        let scratch = scratch.take(self.kernel.scratch_len(executor.threads()));
        self.kernel.forward(x, &weights.data, &epilogue, y, scratch, &*executor);
        Ok(())
    }
}

/// Index of the candidate to take, and why: the one asked for, else the tuned one, else the modelled one.
fn choose(shape: &ConvShape, level: Level, options: &Options, candidates: &mut [Candidate]) -> Result<(usize, String)> {
    let supported = candidates.iter().enumerate().filter_map(|(i, c)| Some((i, *c.predicted.as_ref().ok()?)));
    // The first of equals: the order of the table breaks ties.
    let modelled = supported.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i);
    let tuned = modelled.and_then(|m| tune::consult(shape, level, options, candidates, m));
    if let Some(name) = &options.algo {
        let refused = |why| Error::Algo { name: name.clone(), why };
        let Some(asked) = candidates.iter().position(|c| c.algo == name) else {
            return Err(refused(format!("unknown; there are {}", names())));
        };
        return match &candidates[asked].predicted {
            Ok(_) => Ok((asked, "asked for".into())),
            Err(why) => Err(refused(why.clone())),
        };
    }
    let modelled = modelled.map(|m| (m, "the cost model predicts it to be fastest".into()));
    let none = || Error::Algo { name: String::new(), why: "none supports the shape".into() };
    tuned.or(modelled).ok_or_else(none)
}

fn names() -> String {
    ALGOS.iter().map(|a| a.name).collect::<Vec<_>>().join(", ")
}

/// Prints a plan's choice; made by [`ConvPlan::explain`].
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'a>(&'a ConvPlan);

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = self.0;
        let s = &p.shape;
        let [n, ic, ih, iw] = s.input();
        let [_, oc, oh, ow] = s.output();
        write!(f, "convolution [{n}, {ic}, {ih}, {iw}] -> [{n}, {oc}, {oh}, {ow}], kernel {}x{}", s.kh, s.kw)?;
        write!(f, ", stride {}x{}, dilation {}x{}, groups {}", s.sh, s.sw, s.dh, s.dw, s.groups)?;
        writeln!(f, ", padding {}/{}/{}/{}", s.pad.top, s.pad.left, s.pad.bottom, s.pad.right)?;
        writeln!(
            f,
            "{:.3} GFLOP at level {}, {} in, {} out",
            2e-9 * s.macs() as f64,
            p.level,
            p.options.input.name(),
            p.options.output.name()
        )?;
        writeln!(f, "chosen: {} ({}), because {}", p.algo, p.kernel(), p.reason)?;
        for c in &p.candidates {
            match &c.predicted {
                Ok(ms) => {
                    write!(f, "  {:<10} predicted {ms:9.4} ms on one thread", c.algo)?;
                    if let Some(t) = c.measured {
                        let (ms, warm, cold) = (t.ms(), t.warm_ms(), t.cold_ms());
                        write!(f, ", measured {ms:9.4} ms ({warm:.4} with warm weights, {cold:.4} with cold ones)")?;
                    }
                    writeln!(f)?;
                }
                Err(why) => writeln!(f, "  {:<10} no: {why}", c.algo)?,
            }
        }
        let packed = p.kernel.packed_len() * 4;
        write!(
            f,
            "packed weights {:.1} KiB, scratch {:.1} KiB a thread",
            packed as f64 / 1024.0,
            p.scratch_len(1) as f64 / 256.0
        )
    }
}
