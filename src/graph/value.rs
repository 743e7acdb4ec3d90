//! Recording: cheap handles to values, whose operators append nodes to the graph that they share.

use core::fmt;
use core::ops;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use swath_kernels::epilogue::Activation;

use super::ops::{Activate, Binary, Concat, Flatten, Slice};
use super::{Builder, Fact, Graph, Init, Operator, ParameterSpec, ValueId};
use crate::error::{Error, Result};

/// The graph under construction.
struct Recorder {
    builder: Builder,
    owners: HashMap<String, (LayerId, ValueId)>,
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
/// A handle, cheap to clone. `+`, `-`, `*` and `/` work element by element; extents of 1 are repeated. Shapes are unknown while a model
/// is recorded, so a mismatch surfaces when the model is compiled, with both shapes and the layer's name. Other mistakes of operators
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
    id: ValueId,
}

pub(super) fn record(dims: Option<Vec<usize>>, f: impl FnOnce(&Value) -> Result<Value>) -> Result<Graph> {
    record_facts(&[("input", dims.map(Fact::f32))], &["output"], |x| Ok(vec![f(&x[0])?]))
}

pub(super) fn record_many(
    inputs: &[&str],
    outputs: &[&str],
    f: impl FnOnce(&[Value]) -> Result<Vec<Value>>,
) -> Result<Graph> {
    let inputs: Vec<(&str, Option<Fact>)> = inputs.iter().map(|name| (*name, None)).collect();
    record_facts(&inputs, outputs, f)
}

fn record_facts(
    inputs: &[(&str, Option<Fact>)],
    outputs: &[&str],
    f: impl FnOnce(&[Value]) -> Result<Vec<Value>>,
) -> Result<Graph> {
    let mut builder = Builder::new();
    let inputs: Vec<ValueId> = inputs.iter().map(|(name, fact)| builder.input(name, fact.clone())).collect();
    let recorder = Rc::new(RefCell::new(Recorder { builder, owners: HashMap::new(), error: None }));
    let inputs: Vec<Value> = inputs.into_iter().map(|id| Value { recorder: recorder.clone(), id }).collect();
    let results = f(&inputs)?;
    let mut recorded = recorder.borrow_mut();
    if let Some(e) = recorded.error.take() {
        return Err(e);
    }
    if results.iter().any(|v| !Rc::ptr_eq(&recorder, &v.recorder)) {
        return Err(Error::Foreign { what: "the output" });
    }
    if results.len() != outputs.len() {
        let rule = format!("there are {} names", outputs.len());
        return Err(Error::Setting { what: "the number of outputs", value: results.len().to_string(), rule });
    }
    let named: Vec<(&str, ValueId)> = outputs.iter().copied().zip(results.iter().map(|v| v.id)).collect();
    recorded.builder.clone().finish(&named)
}

/// Goes on recording from a graph: `f` gets the values of its outputs and of new inputs, and gives what is to be appended to the outputs.
pub(super) fn extend(
    graph: &Graph,
    inputs: &[&str],
    outputs: &[&str],
    f: impl FnOnce(&[Value], &[Value]) -> Result<Vec<Value>>,
) -> Result<Graph> {
    let unknown = graph.nodes.iter().map(|_| None).collect();
    let mut builder = Builder { graph: graph.clone(), facts: unknown, layer: String::new() };
    let added: Vec<ValueId> = inputs.iter().map(|name| builder.input(name, None)).collect();
    let old: Vec<(String, ValueId)> = graph.outputs.clone();
    let recorder = Rc::new(RefCell::new(Recorder { builder, owners: HashMap::new(), error: None }));
    let value = |id: ValueId| Value { recorder: recorder.clone(), id };
    let results: Vec<Value> = old.iter().map(|(_, id)| value(*id)).collect();
    let added: Vec<Value> = added.into_iter().map(value).collect();
    let appended = f(&results, &added)?;
    let mut recorded = recorder.borrow_mut();
    if let Some(e) = recorded.error.take() {
        return Err(e);
    }
    if appended.iter().any(|v| !Rc::ptr_eq(&recorder, &v.recorder)) {
        return Err(Error::Foreign { what: "the output" });
    }
    let mut named: Vec<(&str, ValueId)> = old.iter().map(|(name, id)| (name.as_str(), *id)).collect();
    named.extend(outputs.iter().copied().zip(appended.iter().map(|v| v.id)));
    recorded.builder.clone().finish(&named)
}

impl Value {
    fn with(&self, id: ValueId) -> Value {
        Value { recorder: self.recorder.clone(), id }
    }

    /// Appends an operator that takes `inputs`, of which `self` need not be one; its first result.
    pub fn push(&self, op: impl Operator, inputs: &[&Value]) -> Value {
        self.push_all(op, inputs).swap_remove(0)
    }

    /// Appends an operator that takes `inputs`, of which `self` need not be one; all its results.
    pub fn push_all(&self, op: impl Operator, inputs: &[&Value]) -> Vec<Value> {
        let op: Arc<dyn Operator> = Arc::new(op);
        let results = op.results();
        let mut r = self.recorder.borrow_mut();
        let ids: Vec<ValueId> = inputs.iter().map(|v| v.id).collect();
        let pushed = if inputs.iter().any(|v| !Rc::ptr_eq(&v.recorder, &self.recorder)) {
            Err(Error::Foreign { what: op.name() })
        } else {
            r.builder.push_shared(op, &ids)
        };
        match pushed {
            Ok(ids) => ids.into_iter().map(|id| self.with(id)).collect(),
            Err(e) => {
                r.error.get_or_insert(e);
                vec![self.clone(); results]
            }
        }
    }

    /// Declares a parameter of the enclosing layer. The same layer gets the same parameter again.
    pub(crate) fn parameter(&self, owner: &LayerId, name: &str, dims: &[usize], init: Init) -> Result<Value> {
        self.declare(owner, name, dims, init, true)
    }

    /// Declares a running statistic of the enclosing layer: a value that is saved with the parameters, but not trained.
    pub(crate) fn statistic(&self, owner: &LayerId, name: &str, dims: &[usize], init: Init) -> Result<Value> {
        self.declare(owner, name, dims, init, false)
    }

    fn declare(&self, owner: &LayerId, name: &str, dims: &[usize], init: Init, trained: bool) -> Result<Value> {
        let mut r = self.recorder.borrow_mut();
        let name = join(&r.builder.layer, name);
        if let Some((other, id)) = r.owners.get(&name) {
            return if other == owner { Ok(self.with(*id)) } else { Err(Error::DuplicateParameter { name }) };
        }
        let id = r.builder.parameter(ParameterSpec { name: name.clone(), dims: dims.to_vec(), init, trained });
        r.owners.insert(name, (LayerId(owner.0), id));
        Ok(self.with(id))
    }

    /// A constant.
    ///
    /// ```
    /// use swath::{Tensor, Value, nn::Module};
    /// let net = |x: &Value| Ok(x * &x.constant(Tensor::new([1], &[3.0])?));
    /// assert_eq!(net.build(0)?.compile([1, 2])?.run(&[1.0, 2.0])?.as_slice(), [3.0, 6.0]);
    /// # Ok::<(), swath::Error>(())
    /// ```
    pub fn constant(&self, value: crate::Tensor) -> Value {
        let id = self.recorder.borrow_mut().builder.constant(value);
        self.with(id)
    }

    /// Runs `f` inside of a named layer: parameters declared there are called `name.weight` and so on.
    ///
    /// # Errors
    /// Those of `f`, with the layer's dotted name.
    pub fn scope<T>(&self, name: &str, f: impl FnOnce(&Value) -> Result<T>) -> Result<T> {
        let inner = join(&self.recorder.borrow().builder.layer, name);
        let outer = core::mem::replace(&mut self.recorder.borrow_mut().builder.layer, inner.clone());
        let result = f(self);
        self.recorder.borrow_mut().builder.layer = outer;
        result.map_err(|e| e.in_layer(&inner))
    }

    /// The extents, if the graph is recorded for a known shape ([`Graph::record_for`]).
    pub fn dims(&self) -> Option<Vec<usize>> {
        self.recorder.borrow().builder.fact(self.id).map(|f| f.dims.clone())
    }

    /// An elementwise activation.
    pub fn activation(&self, activation: Activation) -> Value {
        match activation {
            Activation::Identity => self.clone(),
            a => self.push(Activate(a), &[self]),
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
        self.push(Flatten, &[self])
    }

    /// Elements `start .. start + len` along a dimension, of which -1 is the last.
    pub fn narrow(&self, dim: isize, start: usize, len: usize) -> Value {
        self.push(Slice { dim, start, len }, &[self])
    }

    /// Puts the channels of `self` and `others` one after another. All other extents are equal.
    pub fn concat(&self, others: &[&Value]) -> Value {
        let mut all = vec![self];
        all.extend(others);
        self.push(Concat, &all)
    }
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.into() } else { format!("{scope}.{name}") }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value(%{}, {:?})", self.id.node, self.dims())
    }
}

macro_rules! arithmetic {
    ($($trait:ident $method:ident $op:ident;)*) => {$(
        impl ops::$trait<&Value> for &Value {
            type Output = Value;
            fn $method(self, other: &Value) -> Value {
                self.push(Binary::$op(), &[self, other])
            }
        }

        impl ops::$trait<Value> for Value {
            type Output = Value;
            fn $method(self, other: Value) -> Value {
                ops::$trait::$method(&self, &other)
            }
        }

        impl ops::$trait<&Value> for Value {
            type Output = Value;
            fn $method(self, other: &Value) -> Value {
                ops::$trait::$method(&self, other)
            }
        }

        impl ops::$trait<Value> for &Value {
            type Output = Value;
            fn $method(self, other: Value) -> Value {
                ops::$trait::$method(self, &other)
            }
        }
    )*};
}

arithmetic! {
    Add add add;
    Sub sub sub;
    Mul mul mul;
    Div div div;
}
