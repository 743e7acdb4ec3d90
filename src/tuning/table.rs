//! Tuning tables: what was measured, under which conditions.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::registry::FAMILIES;
use swath_kernels::shape::ConvShape;

use crate::algo::ALGOS;
use crate::machine;

/// What measurements depend on besides the problem. All of it must match for an entry to apply.
///
/// Strings, also where this build has a type: a file may hold entries of other machines and versions, and keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Conditions {
    /// [`machine::cpu_identity`].
    pub cpu: String,
    /// Name of the instruction-set level.
    pub level: String,
    /// Threads that runs use.
    pub threads: usize,
    /// [`kernel_set`] of the build.
    pub kernels: String,
}

impl Conditions {
    /// Those of this machine and this build, at a level, on so many threads.
    pub fn here(level: Level, threads: usize) -> Self {
        Self { cpu: machine::cpu_identity().into(), level: level.name().into(), threads, kernels: kernel_set().into() }
    }

    /// Whether the two differ in the kernel set alone.
    fn same_but_kernels(&self, other: &Self) -> bool {
        (&self.cpu, &self.level, self.threads) == (&other.cpu, &other.level, other.threads)
    }
}

/// Makes measurements of older kernels stale. For whoever makes kernels faster and leaves their names as they are, if that
/// turns choices around.
const REVISION: &str = "6";

/// Checksum of the kernels that convolutions can choose from: 64-bit FNV-1a over the names of the algorithms that this machine
/// can run, those of the kernels of all tables and levels of the architecture, and a revision, as 16 hexadecimal digits. Measurements of another set say
/// nothing of this one.
pub fn kernel_set() -> &'static str {
    static SET: OnceLock<String> = OnceLock::new();
    SET.get_or_init(|| {
        let mut names = vec![REVISION];
        names.extend(ALGOS.iter().filter(|a| (a.is_available)()).map(|a| a.name));
        for level in Level::ALL {
            names.extend(FAMILIES.iter().flat_map(|family| (family.names)(level)).copied());
        }
        checksum(names.into_iter())
    })
}

fn checksum<'a>(names: impl Iterator<Item = &'a str>) -> String {
    // A byte that no name has ends each, so that "a", "bc" and "ab", "c" differ.
    let bytes = names.flat_map(|n| n.bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// A convolution as tables know it: a geometry, and the layouts of its activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// The geometry.
    pub shape: ConvShape,
    /// Layout of the input.
    pub input: Layout,
    /// Layout of the output.
    pub output: Layout,
}

/// Milliseconds of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    ms: f64,
    warm_ms: f64,
    cold_ms: f64,
}

/// Figures are finite, so equality is reflexive.
impl Eq for Figures {}

impl Figures {
    /// Figures, rounded to nanoseconds: `ms` is what decides, `warm_ms` with weights in cache, `cold_ms` with weights
    /// from memory. `None` unless all are positive and finite.
    pub fn new(ms: f64, warm_ms: f64, cold_ms: f64) -> Option<Self> {
        let [ms, warm_ms, cold_ms] = [ms, warm_ms, cold_ms].map(|v| (v * 1e6).round() / 1e6);
        let valid = |v: f64| v > 0.0 && v.is_finite();
        (valid(ms) && valid(warm_ms) && valid(cold_ms)).then_some(Self { ms, warm_ms, cold_ms })
    }

    /// What decides: the tuner's mean of warm and cold.
    pub fn ms(&self) -> f64 {
        self.ms
    }

    /// With weights in cache.
    pub fn warm_ms(&self) -> f64 {
        self.warm_ms
    }

    /// With weights from memory.
    pub fn cold_ms(&self) -> f64 {
        self.cold_ms
    }
}

/// One candidate, as it was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// What [`Options::algo`](crate::Options) takes: a name of [`ALGOS`].
    pub algo: String,
    /// Its times.
    pub figures: Figures,
}

/// What was measured of one convolution: its candidates, the fastest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry(Vec<Measured>);

impl Entry {
    /// Sorts the candidates. `None` without any, and where two have the same name.
    pub fn new(mut candidates: Vec<Measured>) -> Option<Self> {
        candidates.sort_by(|a, b| a.figures.ms.total_cmp(&b.figures.ms).then_with(|| a.algo.cmp(&b.algo)));
        let names: HashSet<&str> = candidates.iter().map(|c| c.algo.as_str()).collect();
        (!candidates.is_empty() && names.len() == candidates.len()).then_some(Self(candidates))
    }

    /// The fastest.
    pub fn winner(&self) -> &Measured {
        &self.0[0]
    }

    /// All, the fastest first.
    pub fn candidates(&self) -> &[Measured] {
        &self.0
    }

    /// Of each candidate of both, the faster time.
    #[must_use]
    pub fn fastest(&self, other: &Entry) -> Entry {
        let mut all = self.0.clone();
        for theirs in &other.0 {
            match all.iter_mut().find(|m| m.algo == theirs.algo) {
                Some(mine) if mine.figures.ms <= theirs.figures.ms => (),
                Some(mine) => *mine = theirs.clone(),
                None => all.push(theirs.clone()),
            }
        }
        Self::new(all).expect("candidates of two entries, each once")
    }

    /// The figures of one of them.
    pub fn figures(&self, algo: &str) -> Option<Figures> {
        self.0.iter().find(|m| m.algo == algo).map(|m| m.figures)
    }
}

/// Measurements by conditions and convolution.
///
/// ```
/// use swath::tune::{Conditions, Convolution, Entry, Figures, Measured, Tuning, TuningTable};
/// use swath::{Accuracy, ConvPlan, ConvShape, Options};
///
/// let shape = ConvShape::builder([1, 64, 14, 14], [64, 64, 3, 3]).padding(1).build()?;
/// let options = Options { threads: Some(1), accuracy: Accuracy::Exact, ..Options::blocked() };
/// let measured = |algo: &str, ms| Measured { algo: algo.into(), figures: Figures::new(ms, ms, ms).unwrap() };
/// let mut table = TuningTable::new("an example");
/// table.insert(
///     Conditions::of(swath::cpu()?.level, &options),
///     Convolution::new(&shape, &options),
///     Entry::new(vec![measured("direct", 0.2), measured("gemm", 0.1)]).unwrap(),
/// );
/// let tuned = Options { tuning: Tuning::Table(table.into()), ..options };
/// assert_eq!(ConvPlan::new(&shape, &tuned)?.algo(), "gemm");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TuningTable {
    source: Arc<str>,
    entries: HashMap<Conditions, HashMap<Convolution, Entry>>,
}

/// Of the entries; where they come from does not matter.
impl PartialEq for TuningTable {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Eq for TuningTable {}

impl TuningTable {
    /// An empty table. Explanations of plans name its source: a file's path, or a word for something else.
    pub fn new(source: &str) -> Self {
        Self { source: source.into(), entries: HashMap::new() }
    }

    /// Where the entries come from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The entry that matches exactly.
    pub fn get(&self, conditions: &Conditions, convolution: &Convolution) -> Option<&Entry> {
        self.entries.get(conditions)?.get(convolution)
    }

    /// Puts an entry in, in place of an older one with the same key.
    pub fn insert(&mut self, conditions: Conditions, convolution: Convolution, entry: Entry) {
        self.entries.entry(conditions).or_default().insert(convolution, entry);
    }

    /// Takes all entries of `other`, which win over those with the same key. Entries of this build's kernel set also
    /// displace stale ones, which differ in the kernel set alone; whatever else the table holds stays.
    pub fn merge(&mut self, other: &TuningTable) {
        for (conditions, convolution, entry) in other.iter() {
            if conditions.kernels == kernel_set() {
                for (theirs, entries) in &mut self.entries {
                    if theirs.same_but_kernels(conditions) && theirs.kernels != conditions.kernels {
                        entries.remove(convolution);
                    }
                }
            }
            self.insert(conditions.clone(), *convolution, entry.clone());
        }
        self.entries.retain(|_, entries| !entries.is_empty());
    }

    /// Those entries whose conditions satisfy `wanted`.
    pub fn filtered(&self, wanted: impl Fn(&Conditions) -> bool) -> Self {
        let entries = self.entries.iter().filter(|(c, _)| wanted(c)).map(|(c, e)| (c.clone(), e.clone())).collect();
        Self { source: self.source.clone(), entries }
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&Conditions, &Convolution, &Entry)> {
        self.entries.iter().flat_map(|(c, entries)| entries.iter().map(move |(v, e)| (c, v, e)))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.values().map(HashMap::len).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries stand for what.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for (c, _, _) in self.iter() {
            *match (c.cpu == machine::cpu_identity(), c.kernels == kernel_set()) {
                (true, true) => &mut census.current,
                (true, false) => &mut census.stale,
                (false, _) => &mut census.foreign,
            } += 1;
        }
        census
    }
}

/// Numbers of a table's entries, as this build on this machine sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Of this CPU and this build's kernel set, at any level and number of threads.
    pub current: usize,
    /// Of this CPU and another kernel set.
    pub stale: usize,
    /// Of another CPU.
    pub foreign: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_sees_every_name_and_where_it_ends() {
        let sum = |names: &[&str]| checksum(names.iter().copied());
        assert_eq!(kernel_set().len(), 16);
        assert_eq!(sum(&[]), "cbf29ce484222325", "FNV-1a's offset basis");
        assert_ne!(sum(&["a", "bc"]), sum(&["ab", "c"]));
        assert_ne!(sum(&["a", "b"]), sum(&["b", "a"]));
    }

    #[test]
    fn entries_are_sorted_and_refuse_nonsense() {
        let m = |algo: &str, ms| Measured { algo: algo.into(), figures: Figures::new(ms, ms, ms).unwrap() };
        let entry = Entry::new(vec![m("slow", 2.0), m("fast", 1.0)]).unwrap();
        assert_eq!((entry.winner().algo.as_str(), entry.candidates().len()), ("fast", 2));
        let other = Entry::new(vec![m("fast", 1.5), m("slow", 0.5), m("new", 3.0)]).unwrap();
        let fastest = Entry::new(vec![m("slow", 0.5), m("fast", 1.0), m("new", 3.0)]).unwrap();
        assert_eq!(entry.fastest(&other), fastest);
        assert_eq!(other.fastest(&entry), fastest);
        assert_eq!(Entry::new(vec![]), None);
        assert_eq!(Entry::new(vec![m("a", 1.0), m("b", 1.5), m("a", 2.0)]), None);
        for v in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-9] {
            assert_eq!(Figures::new(1.0, 1.0, v), None, "{v}");
        }
    }
}
