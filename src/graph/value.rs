//! Recording: cheap handles to values, whose operators append nodes to the graph that they share.

use core::fmt;
use core::ops;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use swath_kernels::epilogue::Activation;

use super::{Graph, Init, Node, NodeId, Op, ParameterId, ParameterSpec, add, concat, flatten};
use crate::error::{Error, Result};

/// The graph under construction.
struct Recorder {
    graph: Graph,
    /// Extents of each value, where known.
    dims: Vec<Option<Vec<usize>>>,
    /// Names of the enclosing layers, joined by dots.
    scope: String,
    owners: HashMap<String, (LayerId, ParameterId)>,
    /// The first error of an operator that cannot return one, such as `+`.
    error: Option<Error>,
}

/// Says which layer declares a parameter, so that calling one layer twice shares its parameters, while two
/// layers under one name are told apart. A clone is another layer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LayerId(u64);

impl LayerId {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Clone for LayerId {
    fn clone(&self) -> Self {
        Self::new()
    }
}

/// A value of the graph: what custom modules take and return.
///
/// A handle, cheap to clone. `+` adds values of equal shapes; shapes are unknown while a model is recorded, so
/// a mismatch surfaces when the model is compiled, with both shapes and the layer's name. Other mistakes of operators
/// surface when the recording ends.
///
/// ```
/// use swath::Value;
/// use swath::nn::{Conv2d, Module};
/// let (a, b) = (Conv2d::new(3, 16, 3).padding(1).named("a"), Conv2d::new(3, 16, 3).named("b"));
/// let net = |x: &Value| Ok(a.call(x)? + b.call(x)?);
/// let e = net.build(0)?.compile([1, 3, 8, 8]).unwrap_err();
/// assert_eq!(e.to_string(), "Add: the shapes [1, 16, 8, 8] and [1, 16, 6, 6] do not agree");
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone)]
pub struct Value {
    recorder: Rc<RefCell<Recorder>>,
    id: NodeId,
}

pub(super) fn record(dims: Option<Vec<usize>>, f: impl FnOnce(&Value) -> Result<Value>) -> Result<Graph> {
    let input = Node { op: Op::Input, inputs: Vec::new(), layer: String::new() };
    let graph = Graph { nodes: vec![input], parameters: Vec::new(), output: 0 };
    let recorder = Recorder { graph, dims: vec![dims], scope: String::new(), owners: HashMap::new(), error: None };
    let recorder = Rc::new(RefCell::new(recorder));
    let output = f(&Value { recorder: recorder.clone(), id: 0 })?;
    let mut recorded = recorder.borrow_mut();
    if let Some(e) = recorded.error.take() {
        return Err(e);
    }
    if !Rc::ptr_eq(&recorder, &output.recorder) {
        return Err(Error::Foreign { what: "the output" });
    }
    recorded.graph.output = output.id;
    Ok(recorded.graph.clone())
}

impl Value {
    /// Appends an operator that takes `inputs`, of which `self` need not be one.
    pub(crate) fn push(&self, op: Op, inputs: &[&Value]) -> Value {
        let mut r = self.recorder.borrow_mut();
        if let Some(name) = inputs.iter().any(|v| !Rc::ptr_eq(&v.recorder, &self.recorder)).then(|| op.name()) {
            r.error.get_or_insert(Error::Foreign { what: name });
            return self.clone();
        }
        let known: Option<Vec<&[usize]>> = inputs.iter().map(|v| r.dims[v.id].as_deref()).collect();
        let dims = match (known, op.operator()) {
            (Some(known), Some(operator)) => operator.dims(&known).map(Some),
            _ => Ok(None),
        };
        let layer = r.scope.clone();
        let dims = dims.unwrap_or_else(|e| {
            r.error.get_or_insert(e.in_layer(&layer));
            None
        });
        r.dims.push(dims);
        r.graph.nodes.push(Node { op, inputs: inputs.iter().map(|v| v.id).collect(), layer });
        Value { recorder: self.recorder.clone(), id: r.graph.nodes.len() - 1 }
    }

    /// Declares a parameter of the enclosing layer. The same layer gets the same parameter again.
    pub(crate) fn parameter(&self, owner: &LayerId, name: &str, dims: &[usize], init: Init) -> Result<ParameterId> {
        self.declare(owner, name, dims, init, true)
    }

    /// Declares a running statistic of the enclosing layer: a value that is saved with the parameters, but not trained.
    pub(crate) fn statistic(&self, owner: &LayerId, name: &str, dims: &[usize], init: Init) -> Result<ParameterId> {
        self.declare(owner, name, dims, init, false)
    }

    fn declare(&self, owner: &LayerId, name: &str, dims: &[usize], init: Init, trained: bool) -> Result<ParameterId> {
        let mut r = self.recorder.borrow_mut();
        let name = join(&r.scope, name);
        if let Some((other, id)) = r.owners.get(&name) {
            return if other == owner { Ok(*id) } else { Err(Error::DuplicateParameter { name }) };
        }
        let id = r.graph.parameters.len();
        r.owners.insert(name.clone(), (LayerId(owner.0), id));
        r.graph.parameters.push(ParameterSpec { name, dims: dims.to_vec(), init, trained });
        Ok(id)
    }

    /// Runs `f` inside of a named layer: parameters declared there are called `name.weight` and so on.
    ///
    /// # Errors
    /// Those of `f`, with the layer's dotted name.
    pub fn scope<T>(&self, name: &str, f: impl FnOnce(&Value) -> Result<T>) -> Result<T> {
        let inner = join(&self.recorder.borrow().scope, name);
        let outer = core::mem::replace(&mut self.recorder.borrow_mut().scope, inner.clone());
        let result = f(self);
        self.recorder.borrow_mut().scope = outer;
        result.map_err(|e| e.in_layer(&inner))
    }

    /// The extents, if the graph is recorded for a known shape ([`Graph::record_for`]).
    pub fn dims(&self) -> Option<Vec<usize>> {
        self.recorder.borrow().dims[self.id].clone()
    }

    /// An elementwise activation.
    pub fn activation(&self, activation: Activation) -> Value {
        match activation {
            Activation::Identity => self.clone(),
            a => self.push(Op::Activation(a), &[self]),
        }
    }

    /// `max(x, 0)`.
    pub fn relu(&self) -> Value {
        self.activation(Activation::Relu)
    }

    /// `1 / (1 + exp(-x))`.
    pub fn sigmoid(&self) -> Value {
        self.activation(Activation::Sigmoid)
    }

    /// Hyperbolic tangent.
    pub fn tanh(&self) -> Value {
        self.activation(Activation::Tanh)
    }

    /// `x * sigmoid(x)`.
    pub fn silu(&self) -> Value {
        self.activation(Activation::Silu)
    }

    /// `x * (1 + erf(x / sqrt 2)) / 2`.
    pub fn gelu(&self) -> Value {
        self.activation(Activation::Gelu)
    }

    /// `[n, c, h, w]` to `[n, c * h * w]`, in PyTorch's order.
    pub fn flatten(&self) -> Value {
        self.push(Op::Flatten(flatten::Flatten), &[self])
    }

    /// Puts the channels of `self` and `others` one after another. All other extents are equal.
    pub fn concat(&self, others: &[&Value]) -> Value {
        let mut all = vec![self];
        all.extend(others);
        self.push(Op::Concat(concat::Concat), &all)
    }
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.into() } else { format!("{scope}.{name}") }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value(%{}, {:?})", self.id, self.dims())
    }
}

impl ops::Add<&Value> for &Value {
    type Output = Value;
    fn add(self, other: &Value) -> Value {
        self.push(Op::Add(add::Add), &[self, other])
    }
}

impl ops::Add<Value> for Value {
    type Output = Value;
    fn add(self, other: Value) -> Value {
        &self + &other
    }
}

impl ops::Add<&Value> for Value {
    type Output = Value;
    fn add(self, other: &Value) -> Value {
        &self + other
    }
}

impl ops::Add<Value> for &Value {
    type Output = Value;
    fn add(self, other: Value) -> Value {
        self + &other
    }
}
