//! How plans of all passes choose their algorithm, and say why.

use core::fmt;
use std::borrow::Cow;

use swath_kernels::finite::FiniteRange;
use swath_kernels::isa::Level;
use swath_kernels::layout::Pitches;
use swath_kernels::machine::Core;
use swath_kernels::shape::ConvShape;

use super::Options;
use super::candidates::{Candidate, consult};
use crate::algo::{self, ALGOS, Pass, Planned, Request};
use crate::error::{Error, Result};
use crate::layout::Held;
use crate::tuning::{Convolution, Tuning};

/// A convolution, one of its passes, and the kernel that was chosen for it.
#[derive(Clone, Debug)]
pub(super) struct Choice<K> {
    pub shape: ConvShape,
    pub options: Options,
    pub core: Core,
    /// How input and output lie, and the gradients there.
    pub input: Held,
    pub output: Held,
    pub algo: &'static str,
    pub kernel: K,
    /// Milliseconds on one thread, by the cost model.
    pub predicted: f64,
    pub candidates: Vec<Candidate>,
    pub reason: Cow<'static, str>,
}

impl<K: Planned> Choice<K> {
    /// Asks every algorithm to plan, and takes one. Never times anything.
    pub fn new(shape: &ConvShape, options: &Options) -> Result<Self> {
        let core = super::core(options)?;
        let held = super::held([shape.input(), shape.output()], options)?;
        let request = Request { shape, core, views: held.map(|held| held.view()), accuracy: options.accuracy };
        let mut candidates = Vec::with_capacity(ALGOS.len());
        let mut kernels = Vec::with_capacity(ALGOS.len());
        for algo in ALGOS {
            let (predicted, kernel) = match K::plan(algo, &request) {
                Ok(kernel) => (Ok(kernel.predict(algo.name, core, shape)), Some(kernel)),
                Err(why) => (Err(why), None),
            };
            candidates.push(Candidate { algo: algo.name, predicted, measured: None });
            kernels.push(kernel);
        }
        let (chosen, reason) = choose(K::PASS, shape, core.level, options, &mut candidates)?;
        let Candidate { algo, predicted, .. } = &candidates[chosen];
        let (algo, predicted) = (*algo, predicted.as_ref().map_or(f64::INFINITY, |&ms| ms));
        if let Tuning::Kept(kept) = &options.tuning {
            kept.keep(K::PASS, &Convolution::new(shape, options), algo);
        }
        let kernel = kernels.swap_remove(chosen).expect("only what supports the shape is chosen");
        let (shape, options, [input, output]) = (*shape, options.clone(), held);
        Ok(Self { shape, options, core, input, output, algo, kernel, predicted, candidates, reason })
    }

    /// The same of so many images, by the same algorithm.
    pub fn with_batch(&self, n: usize) -> Result<Self> {
        let Self { shape, options, core, algo: name, .. } = self;
        let shape = shape.with_batch(n)?;
        let (core, held) = (*core, super::held([shape.input(), shape.output()], options)?);
        let algo = algo::find(name).expect("the plan has one of the table");
        let views = held.map(|held| held.view());
        let kernel = K::plan(algo, &Request { shape: &shape, core, views, accuracy: options.accuracy })
            .map_err(|why| Error::Algo { name: (*name).into(), why })?;
        let predicted = kernel.predict(name, core, &shape);
        let candidates = vec![Candidate { algo: name, predicted: Ok(predicted), measured: None }];
        let reason = "it is that of the plan for another batch".into();
        let (options, [input, output]) = (options.clone(), held);
        Ok(Self { shape, options, core, input, output, algo: name, kernel, predicted, candidates, reason })
    }
}

/// Index of the candidate to take, and why: the one asked for, else the tuned one, else the modelled one.
fn choose(
    pass: Pass,
    shape: &ConvShape,
    level: Level,
    options: &Options,
    candidates: &mut [Candidate],
) -> Result<(usize, Cow<'static, str>)> {
    let supported = candidates.iter().enumerate().filter_map(|(i, c)| Some((i, *c.predicted.as_ref().ok()?)));
    // The first of equals: the order of the table breaks ties.
    let modelled = supported.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| i);
    // Tuning tables hold forward passes.
    let tuned = modelled.filter(|_| pass == Pass::Forward).and_then(|m| consult(shape, level, options, candidates, m));
    let tuned = tuned.map(|(chosen, why)| (chosen, why.into()));
    let kept = match &options.tuning {
        Tuning::Kept(kept) => kept.get(pass, &Convolution::new(shape, options)),
        _ => None,
    };
    let reason = if options.algo.is_some() { "asked for" } else { "it was chosen before" };
    if let Some(name) = options.algo.as_ref().or(kept.as_ref()) {
        let refused = |why| Error::Algo { name: name.clone(), why };
        let Some(asked) = candidates.iter().position(|c| c.algo == *name) else {
            return Err(refused(format!("unknown; there are {}", names())));
        };
        return match &candidates[asked].predicted {
            Ok(_) => Ok((asked, reason.into())),
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

/// Prints a plan's choice; made by the `explain` of every plan, such as
/// [`ConvPlan::explain`](super::ConvPlan::explain).
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'a> {
    pass: Pass,
    shape: &'a ConvShape,
    options: &'a Options,
    level: Level,
    algo: &'static str,
    kernel: &'static str,
    reason: &'a str,
    candidates: &'a [Candidate],
    /// Floats of packed weights, and of scratch for one thread.
    memory: [usize; 2],
    /// For which magnitudes the result is finite.
    finite: Option<FiniteRange>,
}

impl<'a> Explanation<'a> {
    /// With the kernel's name, and its floats of scratch for one thread.
    pub(super) fn new<K: Planned>(choice: &'a Choice<K>, kernel: &'static str, scratch: usize) -> Self {
        let Choice { shape, options, core, algo, candidates, reason, .. } = choice;
        let (memory, finite) = ([choice.kernel.packed_len(), scratch], choice.kernel.stated_range());
        Self { pass: K::PASS, shape, options, level: core.level, algo, kernel, reason, candidates, memory, finite }
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.shape;
        let [n, ic, ih, iw] = s.input();
        let [_, oc, oh, ow] = s.output();
        let what = match self.pass {
            Pass::Forward => "convolution",
            Pass::BackwardData => "data gradient of convolution",
            Pass::BackwardWeights => "weight gradient of convolution",
        };
        write!(f, "{what} [{n}, {ic}, {ih}, {iw}] -> [{n}, {oc}, {oh}, {ow}], kernel {}x{}", s.kh, s.kw)?;
        write!(f, ", stride {}x{}, dilation {}x{}, groups {}", s.sh, s.sw, s.dh, s.dw, s.groups)?;
        writeln!(f, ", padding {}/{}/{}/{}", s.pad.top, s.pad.left, s.pad.bottom, s.pad.right)?;
        writeln!(
            f,
            "{:.3} GFLOP at level {}, {} in, {} out",
            2e-9 * s.macs() as f64,
            self.level,
            self.options.input.name(),
            self.options.output.name()
        )?;
        let pitches = [("input", self.options.input_pitches), ("output", self.options.output_pitches)];
        for (what, Pitches { image, channel, row }) in pitches.iter().filter_map(|(what, p)| Some((what, (*p)?))) {
            writeln!(f, "{what}: rows {row}, channels {channel}, images {image} floats apart")?;
        }
        writeln!(f, "chosen: {} ({}), because {}", self.algo, self.kernel, self.reason)?;
        for c in self.candidates {
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
        if let Some(range) = &self.finite {
            writeln!(f, "finite wherever the defining sum is, for {range}")?;
        }
        let [packed, scratch] = self.memory.map(|floats| floats as f64 / 256.0);
        write!(f, "packed weights {packed:.1} KiB, scratch {scratch:.1} KiB a thread")
    }
}
