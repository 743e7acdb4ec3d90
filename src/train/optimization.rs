//! What a training run keeps about its parameters: a rule and its rates for each group, and the state of each parameter.

use super::optimizer::{Adjust, MAX_SLOTS, Now, Optimizer, Piece, Rates};
use super::schedule::Schedule;
use crate::buffer::Buffer;
use crate::error::{Error, Result, check_len};
use crate::par;
use swath_kernels::shape::checked_elements;

/// Rules for groups of parameters, their rates at this moment, and the state of every parameter.
///
/// A parameter belongs to the last group that selects it, or else to the first rule. Its state is allocated when it is
/// registered, so that an update allocates nothing. A parameter that is not updated (it has no gradient) keeps its
/// value, its state and its count, as in PyTorch: no weight decay either.
///
/// ```
/// use swath::train::{Adjust, AdamW, Optimization, Select};
/// let mut o = Optimization::new(AdamW::new(1e-3))?
///     .group(Select::Vectors, AdamW::new(1e-3).weight_decay(0.0))? // biases and normalisation
///     .group("head.*", AdamW::new(1e-2))?;
/// let conv = o.register("conv.weight", &[8, 3, 3, 3])?;
/// let head = o.register("head.bias", &[10])?;
/// assert_eq!((o.rates(conv).lr, o.rates(head).lr), (1e-3, 1e-2));
///
/// let (mut values, gradient) = (vec![1.0; 216], vec![0.5; 216]);
/// o.update(conv, &mut values, &gradient, Adjust::NONE)?;
/// assert!((values[0] - (1.0 - 1e-5 - 1e-3)).abs() < 1e-6);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Debug)]
pub struct Optimization {
    groups: Vec<Group>,
    parameters: Vec<Registered>,
}

/// A rule for some of the parameters, and its rates at this moment.
#[derive(Debug)]
struct Group {
    select: Select,
    rule: Box<dyn Optimizer>,
    rates: Rates,
}

/// A parameter's name, group and state.
#[derive(Debug)]
struct Registered {
    name: String,
    dims: Vec<usize>,
    len: usize,
    group: usize,
    count: u64,
    slots: [Buffer; MAX_SLOTS],
}

/// A parameter that was registered with an [`Optimization`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterId(pub(super) usize);

/// Which parameters a group has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Select {
    /// All of them.
    All,
    /// Those whose dotted name fits a pattern, in which `*` stands for any characters and `?` for one.
    Name(String),
    /// Those of one extent: biases, and the weights of normalisation, which recipes leave out of weight decay.
    Vectors,
}

impl Select {
    /// Whether a parameter is meant.
    pub fn fits(&self, name: &str, dims: &[usize]) -> bool {
        match self {
            Self::All => true,
            Self::Name(pattern) => fits(pattern.as_bytes(), name.as_bytes()),
            Self::Vectors => dims.len() == 1,
        }
    }
}

impl From<&str> for Select {
    fn from(pattern: &str) -> Self {
        Self::Name(pattern.into())
    }
}

/// Whether a name fits a pattern of characters, `*` and `?`. Takes at most the product of both lengths.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last star was, and how far it reached: the only place to go back to.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, reached)) = star else { return false };
                star = Some((at, reached + 1));
                (p, n) = (at + 1, reached + 1);
            }
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

impl Optimization {
    /// One rule for all parameters.
    ///
    /// # Errors
    /// If an option of the rule is out of range.
    pub fn new(rule: impl Optimizer + 'static) -> Result<Self> {
        Self { groups: Vec::new(), parameters: Vec::new() }.group(Select::All, rule)
    }

    /// Another rule for some of the parameters. Groups are made before parameters are registered.
    ///
    /// # Errors
    /// If an option of the rule is out of range, or parameters are registered already.
    pub fn group(mut self, select: impl Into<Select>, rule: impl Optimizer + 'static) -> Result<Self> {
        rule.check()?;
        if !self.parameters.is_empty() {
            let rule = "groups are made before parameters are registered".into();
            let value = format!("made after {} of them", self.parameters.len());
            return Err(Error::Setting { what: "a group of parameters", value, rule });
        }
        let rates = rule.rates();
        self.groups.push(Group { select: select.into(), rule: Box::new(rule), rates });
        Ok(self)
    }

    /// Takes a parameter in, and allocates its state.
    ///
    /// # Errors
    /// If the name is taken, or the extents overflow, and [`Error::Memory`].
    pub fn register(&mut self, name: &str, dims: &[usize]) -> Result<ParameterId> {
        if self.parameters.iter().any(|p| p.name == name) {
            return Err(Error::DuplicateParameter { name: name.into() });
        }
        let len = checked_elements("parameter", dims)?;
        // The first group takes everything.
        let group = self.groups.iter().rposition(|g| g.select.fits(name, dims)).unwrap_or(0);
        let used = self.groups[group].rule.slots().len();
        let mut slots = core::array::from_fn(|_| Buffer::default());
        for slot in slots.iter_mut().take(used) {
            *slot = Buffer::lasting(len)?;
        }
        self.parameters.push(Registered { name: name.into(), dims: dims.to_vec(), len, group, count: 0, slots });
        Ok(ParameterId(self.parameters.len() - 1))
    }

    /// Changes a parameter by its gradient, on the threads of the current pool; the same bits for any number of them.
    ///
    /// # Errors
    /// If a length is not that of the registered extents.
    pub fn update(&mut self, id: ParameterId, values: &mut [f32], gradient: &[f32], adjust: Adjust) -> Result<()> {
        let p = &mut self.parameters[id.0];
        check_len("the parameter", values.len(), p.len)?;
        check_len("the gradient", gradient.len(), p.len)?;
        p.count += 1;
        let Group { rule, rates, .. } = &self.groups[p.group];
        let now = Now { count: p.count, rates: *rates, adjust };
        let slots = p.slots.each_mut().map(|s| &mut s[..]);
        par::for_each_part(Piece { values, gradient, slots }, WORK, |piece| rule.update(now, piece));
        Ok(())
    }

    /// Sets the rates of all groups to what a schedule says of this step, from the rates of their rules.
    ///
    /// # Errors
    /// If an option of the schedule is out of range, or the step is past its end.
    pub fn follow(&mut self, schedule: &dyn Schedule, step: u64) -> Result<()> {
        schedule.check()?;
        if let Some(end) = schedule.end().filter(|&end| step >= end) {
            let rule = format!("the schedule {} ends after {end} steps, counted from 0", schedule.name());
            return Err(Error::Setting { what: "the step", value: step.to_string(), rule });
        }
        for g in &mut self.groups {
            g.rates = schedule.rates(step, g.rule.rates());
        }
        Ok(())
    }

    /// The rates of a parameter at this moment.
    pub fn rates(&self, id: ParameterId) -> Rates {
        self.groups[self.parameters[id.0].group].rates
    }

    /// The rates of the first rule at this moment: what a display shows.
    pub fn first_rates(&self) -> Rates {
        self.groups[0].rates
    }

    /// The name of the rule and all its options, group by group: what a checkpoint compares.
    pub fn describe(&self) -> String {
        let group = |g: &Group| format!("{:?}: {} {:?}", g.select, g.rule.name(), g.rule);
        self.groups.iter().map(group).collect::<Vec<_>>().join("; ")
    }

    /// The state of all parameters: names such as `conv.weight.exp_avg`, extents, values.
    pub fn state(&self) -> impl Iterator<Item = (String, &[usize], &[f32])> {
        self.parameters.iter().flat_map(|p| {
            let names = self.groups[p.group].rule.slots();
            names.iter().zip(&p.slots).map(move |(slot, v)| (format!("{}.{slot}", p.name), &p.dims[..], &v[..]))
        })
    }

    /// The state of all parameters, to be filled from a checkpoint.
    pub fn state_mut(&mut self) -> impl Iterator<Item = (String, &[usize], &mut [f32])> {
        let groups = &self.groups;
        self.parameters.iter_mut().flat_map(|p| {
            let Registered { name, dims, slots, group, .. } = p;
            let (names, name, dims) = (groups[*group].rule.slots(), &*name, &dims[..]);
            names.iter().zip(slots).map(move |(slot, v)| (format!("{name}.{slot}"), dims, &mut v[..]))
        })
    }

    /// Names of all parameters with the number of updates that each has had.
    pub fn counts(&self) -> impl ExactSizeIterator<Item = (&str, u64)> {
        self.parameters.iter().map(|p| (p.name.as_str(), p.count))
    }

    /// Sets the number of updates that a parameter has had, from a checkpoint.
    ///
    /// # Errors
    /// If there is no parameter of this name.
    pub fn set_count(&mut self, name: &str, count: u64) -> Result<()> {
        if let Some(p) = self.parameters.iter_mut().find(|p| p.name == name) {
            p.count = count;
            return Ok(());
        }
        let known = self.parameters.iter().map(|p| p.name.clone()).collect();
        Err(Error::UnknownTensor { place: "the optimizer".into(), name: name.into(), known })
    }
}

/// What an element of an update costs, in multiply-adds.
const WORK: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Adam, RmsProp, Sgd};

    #[test]
    fn patterns() {
        let yes = [("*", ""), ("*.bias", "a.b.bias"), ("layer?.*.weight", "layer1.0.conv.weight"), ("a*b*c", "aXbbYc")];
        let no = [("", "a"), ("*.bias", "bias"), ("layer?.*", "layer10.x"), ("a*b*c", "aXbYcd"), ("a", "ab")];
        assert!(yes.iter().all(|(p, n)| fits(p.as_bytes(), n.as_bytes())));
        assert!(no.iter().all(|(p, n)| !fits(p.as_bytes(), n.as_bytes())));
        // Many stars take a product of lengths, not a power.
        assert!(!fits("*a".repeat(200).as_bytes(), "a".repeat(199).as_bytes()));
    }

    #[test]
    fn the_last_group_that_fits_has_the_parameter() {
        let mut o = Optimization::new(Sgd::new(0.1)).unwrap();
        o = o.group(Select::Vectors, Sgd::new(0.2)).unwrap().group("head.*", Sgd::new(0.3)).unwrap();
        let ids = [("a.weight", &[2, 2][..]), ("a.bias", &[2]), ("head.bias", &[2])];
        let lr = ids.map(|(n, d)| o.register(n, d).map(|id| o.rates(id).lr).unwrap());
        assert_eq!(lr, [0.1, 0.2, 0.3]);
        assert!(o.register("a.bias", &[2]).unwrap_err().to_string().contains("a.bias"));
        assert!(o.group("x", Sgd::new(0.1)).unwrap_err().to_string().contains("made after 3"));
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let mut o = Optimization::new(Sgd::new(0.1)).unwrap();
        let id = o.register("p", &[2, 3]).unwrap();
        let e = o.update(id, &mut [0.0; 6], &[0.0; 5], Adjust::NONE).unwrap_err();
        assert_eq!(e.to_string(), "the gradient has 5 elements, but 6 are needed");
        assert_eq!(o.counts().collect::<Vec<_>>(), [("p", 0)]);
    }

    /// Parameters and state after some updates on that many threads.
    fn trained(threads: usize, rule: impl Optimizer + 'static) -> (Vec<f32>, Vec<Vec<f32>>) {
        const N: usize = 100_003;
        let wave = |i: usize, k: u64| ((i as u64 * 7919 + k * 104_729) % 1009) as f32 / 504.5 - 1.0;
        let mut o = Optimization::new(rule).unwrap();
        let id = o.register("p", &[N]).unwrap();
        let mut p: Vec<f32> = (0..N).map(|i| wave(i, 0)).collect();
        par::with_threads(threads, || {
            for k in 1..4 {
                let g: Vec<f32> = (0..N).map(|i| wave(i, k)).collect();
                o.update(id, &mut p, &g, Adjust { scale: 0.5, limit: 0.4 }).unwrap();
            }
        })
        .unwrap();
        (p, o.state().map(|(_, _, v)| v.to_vec()).collect())
    }

    #[test]
    fn the_same_bits_for_any_number_of_threads() {
        let one = trained(1, Adam::new(0.1).amsgrad(true));
        assert_eq!(one.1.len(), 3);
        assert!((2..=8).all(|t| trained(t, Adam::new(0.1).amsgrad(true)) == one));
        let centered = || RmsProp::new(0.01).centered(true).momentum(0.9);
        assert_eq!(trained(1, centered()), trained(3, centered()));
        let sgd = || Sgd::new(0.1).momentum(0.9).nesterov(true);
        assert_eq!(trained(1, sgd()), trained(3, sgd()));
    }

    #[test]
    fn state_goes_out_and_comes_back() {
        let g = [0.5, -0.25];
        let fresh = || {
            let mut o = Optimization::new(Adam::new(0.1)).unwrap();
            let id = o.register("fc.bias", &[2]).unwrap();
            (o, id)
        };
        let ((mut a, id), mut p) = (fresh(), [1.0, 2.0]);
        a.update(id, &mut p, &g, Adjust::NONE).unwrap();
        let (mut b, mut q) = (fresh().0, p);
        for ((name, dims, to), (from_name, from_dims, from)) in b.state_mut().zip(a.state()) {
            assert_eq!((&name, dims), (&from_name, from_dims));
            to.copy_from_slice(from);
        }
        b.set_count("fc.bias", 1).unwrap();
        for (o, p) in [(&mut a, &mut p), (&mut b, &mut q)] {
            o.update(id, p, &g, Adjust::NONE).unwrap();
        }
        assert_eq!(p, q);
        let names: Vec<_> = a.state().map(|(n, ..)| n).collect();
        assert_eq!(names, ["fc.bias.exp_avg", "fc.bias.exp_avg_sq"]);
        assert!(b.set_count("fc.weight", 1).unwrap_err().to_string().contains("fc.bias"));
        assert_eq!(a.describe(), b.describe());
        assert!(a.describe().contains("Adam") && a.describe().contains("lr: 0.1"));
    }
}
