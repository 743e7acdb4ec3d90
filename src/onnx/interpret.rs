//! Runs a model node by node, each operator by [`crate::ops`]: any shapes, any element types, data-dependent sizes, and slow.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::error::OnnxError;
use super::external::External;
use super::proto::{AttributeValue, GraphProto, ModelProto, NodeProto};
use super::scope::{inner, order, place};
use crate::ops::{Array, Attribute, Attributes, Call, Operator, operator};

/// The most rounds of a loop. A damaged model could ask for any number.
const MAX_ROUNDS: i64 = 1 << 20;

/// A model that is run as it is written, without compiling it.
///
/// It is the reference for compiled models, and the way to run what has no fixed shapes. Convolutions and matrix products are
/// plain loops here.
///
/// ```no_run
/// use swath::onnx::{External, Interpreter, ModelProto};
/// use swath::ops::Array;
///
/// let bytes = std::fs::read("model.onnx")?;
/// let interpreter = Interpreter::new(ModelProto::read(&bytes)?, External::beside("model.onnx".as_ref()))?;
/// let x = Array::vector(vec![0.0f32; 3 * 224 * 224]).with_dims([1, 3, 224, 224]).expect("as many elements");
/// for (name, y) in interpreter.run([("input", x)])? {
///     println!("{name} {:?}", y.dims());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Interpreter<'a> {
    model: ModelProto<'a>,
    program: Program,
    constants: HashMap<&'a str, Arc<Array>>,
    external: External,
}

/// A graph made ready: the order of its nodes, and for each its operator, its attributes, and the graphs within it.
#[derive(Debug)]
struct Program {
    order: Vec<usize>,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    kind: Kind,
    attributes: Attributes,
    inner: Vec<Program>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Operator(&'static Operator),
    If,
    Loop,
    Scan,
}

/// Names and what they stand for, in a graph and those around it.
struct Scope<'s, 'a> {
    values: HashMap<&'a str, Arc<Array>>,
    around: Option<&'s Scope<'s, 'a>>,
}

impl<'a> Scope<'_, 'a> {
    fn get(&self, name: &str) -> Option<&Arc<Array>> {
        self.values.get(name).or_else(|| self.around?.get(name))
    }
}

/// The name by which [`operator`] knows a node's operator.
pub(crate) fn qualified<'n>(node: &NodeProto<'n>) -> Cow<'n, str> {
    match node.domain {
        "" => Cow::Borrowed(node.op_type),
        domain => Cow::Owned(format!("{domain}.{}", node.op_type)),
    }
}

fn kind(node: &NodeProto<'_>) -> Option<Kind> {
    match &*qualified(node) {
        "If" => Some(Kind::If),
        "Loop" => Some(Kind::Loop),
        "Scan" => Some(Kind::Scan),
        name => operator(name).map(Kind::Operator),
    }
}

/// The nodes, here and in inner graphs, whose operators this crate lacks: each with its place and its attributes.
fn lacking(graph: &GraphProto<'_>, found: &mut Vec<(usize, String)>) {
    for (i, node) in graph.nodes.iter().enumerate() {
        if kind(node).is_none() {
            let names: Vec<&str> = node.attributes.iter().map(|a| a.name).collect();
            let with = if names.is_empty() { String::new() } else { format!(" with {}", names.join(", ")) };
            found.push((node.offset, format!("{}{with}", place(i, node))));
        }
        inner(node).for_each(|graph| lacking(graph, found));
    }
}

/// A node's attributes, but for graphs.
pub(crate) fn attributes(node: &NodeProto<'_>, external: &External) -> Result<Attributes, OnnxError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut all = Attributes::new();
    for attribute in &node.attributes {
        let value = match &attribute.value {
            AttributeValue::Float(v) => Attribute::Float(*v),
            AttributeValue::Int(v) => Attribute::Int(*v),
            AttributeValue::Bytes(v) => Attribute::Text(text(v)),
            AttributeValue::Tensor(v) => Attribute::Array(v.array(external)?),
            AttributeValue::Floats(v) => Attribute::Floats(v.clone()),
            AttributeValue::Ints(v) => Attribute::Ints(v.clone()),
            AttributeValue::Strings(v) => Attribute::Texts(v.iter().map(|v| text(v)).collect()),
            AttributeValue::Graph(_) => continue,
            AttributeValue::Unsupported(form) => {
                let what = format!("attribute `{}` is a {form}, which this crate lacks", attribute.name);
                return Err(OnnxError::new(node.offset, what));
            }
        };
        all = all.with(attribute.name, value);
    }
    Ok(all)
}

impl Program {
    fn new(graph: &GraphProto<'_>, external: &External) -> Result<Self, OnnxError> {
        let mut steps = Vec::with_capacity(graph.nodes.len());
        for (i, node) in graph.nodes.iter().enumerate() {
            let step = || {
                let kind = kind(node).ok_or_else(|| OnnxError::new(node.offset, "this crate lacks the operator"))?;
                let inner = inner(node).map(|graph| Self::new(graph, external)).collect::<Result<_, _>>()?;
                Ok(Step { kind, attributes: attributes(node, external)?, inner })
            };
            steps.push(step().map_err(|e: OnnxError| e.within(|| place(i, node)))?);
        }
        Ok(Self { order: order(graph)?, steps })
    }
}

impl<'a> Interpreter<'a> {
    /// Makes a model ready.
    ///
    /// # Errors
    ///
    /// [`OnnxError`] that lists every node whose operator this crate lacks, with its attributes; or that says which constant
    /// cannot be read.
    pub fn new(model: ModelProto<'a>, external: External) -> Result<Self, OnnxError> {
        let mut missing = Vec::new();
        lacking(&model.graph, &mut missing);
        if let Some((offset, _)) = missing.first() {
            let list: Vec<&str> = missing.iter().map(|(_, text)| text.as_str()).collect();
            let what = format!("{} nodes of operators that this crate lacks: {}", missing.len(), list.join("; "));
            return Err(OnnxError::new(*offset, what).within(|| "the model".into()));
        }
        let constants = constants(&model.graph, &external)?;
        let program = Program::new(&model.graph, &external)?;
        Ok(Self { model, program, constants, external })
    }

    /// The model.
    pub fn model(&self) -> &ModelProto<'a> {
        &self.model
    }

    /// The graph's outputs, in their order, with their names.
    ///
    /// # Errors
    ///
    /// [`OnnxError`] if an input is missing, or an operator refuses its inputs.
    pub fn run<'n>(
        &self,
        inputs: impl IntoIterator<Item = (&'n str, Array)>,
    ) -> Result<Vec<(&'a str, Array)>, OnnxError> {
        let graph = &self.model.graph;
        let mut values = self.constants.clone();
        for (name, array) in inputs {
            let Some(input) = graph.free_inputs().find(|i| i.name == name) else {
                return Err(OnnxError::new(0, format!("the model has no input `{name}`")));
            };
            values.insert(input.name, Arc::new(array));
        }
        let outputs = self.graph(graph, &self.program, values, None)?;
        let names = graph.outputs.iter().map(|o| o.name);
        Ok(names.zip(outputs.into_iter().map(Arc::unwrap_or_clone)).collect())
    }

    fn opset(&self, domain: &str) -> i64 {
        self.model.opset(domain).unwrap_or(1)
    }

    fn graph(
        &self,
        graph: &GraphProto<'a>,
        program: &Program,
        values: HashMap<&'a str, Arc<Array>>,
        around: Option<&Scope<'_, 'a>>,
    ) -> Result<Vec<Arc<Array>>, OnnxError> {
        let mut scope = Scope { values, around };
        if around.is_some() {
            scope.values.extend(constants(graph, &self.external)?);
        }
        for &i in &program.order {
            let node = &graph.nodes[i];
            let outputs = self.node(node, &program.steps[i], &scope).map_err(|e| e.within(|| place(i, node)))?;
            scope.values.extend(node.outputs.iter().copied().zip(outputs));
        }
        let find = |name: &str| match scope.get(name) {
            Some(value) => Ok(value.clone()),
            None => Err(OnnxError::new(0, format!("no node makes the output `{name}`"))),
        };
        graph.outputs.iter().map(|o| find(o.name)).collect()
    }

    fn node(&self, node: &NodeProto<'a>, step: &Step, scope: &Scope<'_, 'a>) -> Result<Vec<Arc<Array>>, OnnxError> {
        let fail = |what: String| OnnxError::new(node.offset, what);
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for &name in &node.inputs {
            inputs.push(match (name, scope.get(name)) {
                ("", _) => None,
                (_, Some(value)) => Some(value),
                _ => return Err(fail(format!("its input `{name}` is nowhere defined"))),
            });
        }
        match step.kind {
            Kind::Operator(operator) => {
                let inputs: Vec<Option<&Array>> = inputs.iter().map(|i| i.map(|i| &**i)).collect();
                // Trailing outputs that nobody names are not wanted.
                let outputs = node.outputs.iter().rposition(|o| !o.is_empty()).map_or(0, |i| i + 1);
                let opset = self.opset(node.domain);
                let call = Call { opset, attributes: &step.attributes, inputs: &inputs, outputs };
                let outputs = operator.run(&call).map_err(|e| fail(e.to_string()))?;
                Ok(outputs.into_iter().map(Arc::new).collect())
            }
            _ => {
                let inputs: Vec<Option<Arc<Array>>> = inputs.into_iter().map(Option::<&Arc<_>>::cloned).collect();
                let control = Control { interpreter: self, node, step, scope, inputs };
                match step.kind {
                    Kind::If => control.branch(),
                    Kind::Loop => control.rounds(),
                    _ => control.scan(),
                }
            }
        }
    }
}

/// The constants of a graph.
pub(super) fn constants<'a>(
    graph: &GraphProto<'a>,
    external: &External,
) -> Result<HashMap<&'a str, Arc<Array>>, OnnxError> {
    if let Some(name) = graph.sparse_initializers.first() {
        return Err(OnnxError::new(0, format!("the sparse tensor `{name}`, a form that this crate lacks")));
    }
    graph.initializers.iter().map(|t| Ok((t.name, Arc::new(t.array(external)?)))).collect()
}

/// A node with graphs of its own.
struct Control<'c, 'a> {
    interpreter: &'c Interpreter<'a>,
    node: &'c NodeProto<'a>,
    step: &'c Step,
    scope: &'c Scope<'c, 'a>,
    inputs: Vec<Option<Arc<Array>>>,
}

impl<'a> Control<'_, 'a> {
    fn fail<T>(&self, what: impl Into<String>) -> Result<T, OnnxError> {
        Err(OnnxError::new(self.node.offset, what))
    }

    /// The one element of an input.
    fn one<T: crate::ops::Element>(&self, index: usize) -> Result<Option<T>, OnnxError> {
        match self.inputs.get(index).and_then(Option::as_ref).map(|a| a.elements::<T>()) {
            None => Ok(None),
            Some(Some([one])) => Ok(Some(one.clone())),
            Some(_) => self.fail(format!("input {index} is not one element of type {}", T::TYPE)),
        }
    }

    /// Runs the graph of an attribute.
    fn graph(&self, name: &str, inputs: Vec<Arc<Array>>) -> Result<Vec<Arc<Array>>, OnnxError> {
        let mut graphs = self.node.attributes.iter().filter_map(|a| match &a.value {
            AttributeValue::Graph(graph) => Some((a.name, &**graph)),
            _ => None,
        });
        let Some((i, (_, graph))) = graphs.by_ref().enumerate().find(|(_, (n, _))| *n == name) else {
            return self.fail(format!("it has no graph `{name}`"));
        };
        if graph.inputs.len() < inputs.len() {
            return self.fail(format!("{} inputs for `{name}`, which takes {}", inputs.len(), graph.inputs.len()));
        }
        let values = graph.inputs.iter().map(|i| i.name).zip(inputs).collect();
        self.interpreter.graph(graph, &self.step.inner[i], values, Some(self.scope))
    }

    fn branch(&self) -> Result<Vec<Arc<Array>>, OnnxError> {
        match self.one::<bool>(0)? {
            Some(true) => self.graph("then_branch", Vec::new()),
            Some(false) => self.graph("else_branch", Vec::new()),
            None => self.fail("input 0 is missing"),
        }
    }

    /// `Loop`: state that goes round, and outputs of all rounds stacked.
    fn rounds(&self) -> Result<Vec<Arc<Array>>, OnnxError> {
        let most = self.one::<i64>(0)?;
        let mut goes_on = self.one::<bool>(1)?.unwrap_or(true);
        let mut state = Vec::new();
        for input in self.inputs.iter().skip(2) {
            match input {
                Some(value) => state.push(value.clone()),
                None => return self.fail("a state that is left out"),
            }
        }
        let states = state.len();
        let mut stacked: Vec<Vec<Arc<Array>>> = vec![Vec::new(); self.node.outputs.len().saturating_sub(states)];
        let mut round = 0;
        while goes_on && most.is_none_or(|most| round < most) {
            if round == MAX_ROUNDS {
                return self.fail(format!("a loop of more than {MAX_ROUNDS} rounds"));
            }
            let mut inputs = vec![Arc::new(Array::scalar(round)), Arc::new(Array::scalar(goes_on))];
            inputs.append(&mut state);
            let mut outputs = self.graph("body", inputs)?.into_iter();
            goes_on = match outputs.next().as_deref().and_then(Array::elements::<bool>) {
                Some([go]) => *go,
                _ => return self.fail("the body's first output is not one truth value"),
            };
            state.extend(outputs.by_ref().take(states));
            if state.len() < states {
                return self.fail(format!("the body has {} states, but there are {states}", state.len()));
            }
            stacked.iter_mut().zip(outputs).for_each(|(all, next)| all.push(next));
            round += 1;
        }
        for all in stacked {
            state.push(Arc::new(self.stack(&all, 0)?));
        }
        Ok(state)
    }

    /// Arrays of the same dimensions along a new axis.
    fn stack(&self, all: &[Arc<Array>], axis: i64) -> Result<Array, OnnxError> {
        if all.is_empty() {
            return Ok(Array::of([0], Vec::<f32>::new()));
        }
        let axes = Attributes::new().with("axes", Attribute::Ints(vec![axis]));
        let apart = all.iter().map(|a| self.call("Unsqueeze", &axes, &[a])).collect::<Result<Vec<_>, _>>()?;
        let along = Attributes::new().with("axis", Attribute::Int(axis));
        self.call("Concat", &along, &apart.iter().collect::<Vec<_>>())
    }

    fn call(&self, name: &str, attributes: &Attributes, inputs: &[&Array]) -> Result<Array, OnnxError> {
        let inputs: Vec<Option<&Array>> = inputs.iter().copied().map(Some).collect();
        let call = Call { opset: 12, attributes, inputs: &inputs, outputs: 1 };
        match operator(name).map(|op| op.run(&call)) {
            Some(Ok(mut outputs)) => Ok(outputs.swap_remove(0)),
            Some(Err(e)) => self.fail(e.to_string()),
            None => self.fail(format!("this crate lacks {name}")),
        }
    }

    fn ints(&self, name: &str, len: usize) -> Vec<i64> {
        match self.step.attributes.get(name) {
            Some(Attribute::Ints(values)) if values.len() == len => values.clone(),
            _ => vec![0; len],
        }
    }

    /// `Scan`: a loop over slices of inputs.
    fn scan(&self) -> Result<Vec<Arc<Array>>, OnnxError> {
        if self.interpreter.opset("") < 9 {
            return self.fail("Scan of opset 8, a form that this crate lacks");
        }
        let scanned = match self.step.attributes.get("num_scan_inputs") {
            Some(&Attribute::Int(n)) if n > 0 && n as usize <= self.inputs.len() => n as usize,
            _ => return self.fail("num_scan_inputs does not fit the inputs"),
        };
        let mut inputs = Vec::new();
        for input in &self.inputs {
            match input {
                Some(value) => inputs.push(value.clone()),
                None => return self.fail("an input that is left out"),
            }
        }
        let slices = inputs.split_off(inputs.len() - scanned);
        let (mut state, states) = (inputs.clone(), inputs.len());
        let stacks = self.node.outputs.len().saturating_sub(states);
        let (axes, directions) = (self.ints("scan_input_axes", scanned), self.ints("scan_input_directions", scanned));
        let len_along = |a: &Array, axis: i64| {
            let axis = if axis < 0 { axis + a.rank() as i64 } else { axis };
            usize::try_from(axis).ok().and_then(|axis| a.dims().get(axis).copied())
        };
        let Some(rounds) = len_along(&slices[0], axes[0]) else { return self.fail("an axis that the input lacks") };
        if slices.iter().zip(&axes).any(|(a, &axis)| len_along(a, axis) != Some(rounds)) {
            return self.fail("inputs of different lengths");
        }
        let mut stacked: Vec<Vec<Arc<Array>>> = vec![Vec::new(); stacks];
        for round in 0..rounds {
            let mut inputs = std::mem::take(&mut state);
            for ((slice, &axis), &direction) in slices.iter().zip(&axes).zip(&directions) {
                let i = if direction == 0 { round } else { rounds - 1 - round };
                let along = Attributes::new().with("axis", Attribute::Int(axis));
                inputs.push(Arc::new(self.call("Gather", &along, &[slice, &Array::scalar(i as i64)])?));
            }
            let mut outputs = self.graph("body", inputs)?.into_iter();
            state.extend(outputs.by_ref().take(states));
            stacked.iter_mut().zip(outputs).for_each(|(all, next)| all.push(next));
        }
        let (axes, directions) = (self.ints("scan_output_axes", stacks), self.ints("scan_output_directions", stacks));
        for ((mut all, &axis), &direction) in stacked.into_iter().zip(&axes).zip(&directions) {
            if direction != 0 {
                all.reverse();
            }
            state.push(Arc::new(self.stack(&all, axis)?));
        }
        Ok(state)
    }
}
