//! Models as ONNX files.
//!
//! A graph is written for inputs of given dimensions, as operators of opset 17 with their weights inside. What only training needs is
//! left out: dropout vanishes, batch normalisation has its running statistics.

mod operators;

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use swath_kernels::layout::Layout;

use super::encode::Message;
use crate::error::{Error, Result};
use crate::graph::{Fact, Graph, Source, ValueId};
use crate::{Model, Tensor, file};

/// Version of the operators: the newest that every engine of the last years reads.
const OPSET: i64 = 17;
/// Version of the format that goes with it.
const IR_VERSION: i64 = 8;
/// Protobuf's limit of a file.
const MOST_BYTES: usize = i32::MAX as usize;
/// Numbers of element types in ONNX.
const FLOAT: i64 = 1;
const INT64: i64 = 7;

/// A model as an ONNX file, for an input of these dimensions.
///
/// Where the same operators do for any batch, the first dimension of the file's inputs and outputs is open, under the name `batch`. The
/// other dimensions are those given. Values have the names of their layers, weights those of [`Model::state`].
///
/// ```
/// use swath::nn::*;
/// use swath::onnx::{Network, export};
/// use swath::ops::Array;
///
/// let model = Sequential::new((Conv2d::new(1, 4, 3), BatchNorm2d::new(4), GELU::new(), Flatten, Linear::new(16, 3))).build(1)?;
/// let bytes = export(&model, [1, 1, 4, 4])?;
/// let mut again = Network::from_bytes(bytes)?.compile(&[("input", &[2, 1, 4, 4])], &Default::default())?;
/// let x: Vec<f32> = (0..32).map(|i| i as f32).collect();
/// let y = again.run(&[Array::vector(x.clone()).with_dims([2, 1, 4, 4]).expect("32 elements")])?;
/// let expected = model.compile([2, 1, 4, 4])?.run(&x[..])?.as_slice().to_vec();
/// assert!(y[0].elements::<f32>().expect("floats").iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4));
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// One error that lists all nodes that cannot be written; errors of shapes, as in [`Model::compile`]; files of more than 2 GiB, which
/// protobuf does not have.
pub fn export(model: &Model, input: impl AsRef<[usize]>) -> Result<Vec<u8>> {
    export_for(model, &[Fact::f32(input.as_ref())])
}

/// As [`export`], for a model of several inputs, or of inputs that are no floats.
///
/// # Errors
/// As [`export`].
pub fn export_for(model: &Model, inputs: &[Fact]) -> Result<Vec<u8>> {
    let mut written = Written::new(model.graph(), inputs)?;
    written.open = open_batch(model.graph(), inputs, &written);
    written.into_file(model)
}

/// Writes [`export`]'s bytes to a file, whole or not at all.
///
/// # Errors
/// As [`export`], and if the file cannot be written.
pub fn save(model: &Model, input: impl AsRef<[usize]>, path: impl AsRef<Path>) -> Result<()> {
    let bytes = export(model, input)?;
    file::write(path, |out| out.write_all(&bytes))
}

/// Whether all inputs and outputs are of one batch, and another number of it changes no node.
fn open_batch(graph: &Graph, inputs: &[Fact], written: &Written) -> bool {
    let Some(&n) = inputs.first().and_then(|f| f.dims.first()) else { return false };
    let grown = |fact: &Fact| {
        let mut fact = fact.clone();
        fact.dims[0] += 1;
        fact
    };
    if inputs.iter().any(|f| f.dims.first() != Some(&n)) || written.outputs.iter().any(|f| f.dims.first() != Some(&n)) {
        return false;
    }
    let more: Vec<Fact> = inputs.iter().map(grown).collect();
    Written::new(graph, &more).is_ok_and(|other| {
        let same = other.nodes == written.nodes && other.constants == written.constants;
        same && other.outputs.iter().zip(&written.outputs).all(|(a, b)| *a == grown(b))
    })
}

/// An attribute of a node.
#[derive(Debug, Clone, PartialEq)]
enum Attribute {
    Int(i64),
    Float(f32),
    Text(&'static str),
    Ints(Vec<i64>),
}

/// A node of the file.
#[derive(Debug, Clone, PartialEq)]
struct Node {
    op: &'static str,
    name: String,
    inputs: Vec<String>,
    output: String,
    attributes: Vec<(&'static str, Attribute)>,
}

/// Where the elements of an initializer are.
#[derive(Debug, Clone, PartialEq)]
enum Elements {
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    /// A parameter of the model.
    Parameter(usize),
    /// A constant of the graph.
    Constant(Arc<Tensor>),
}

/// An initializer.
#[derive(Debug, Clone, PartialEq)]
struct Constant {
    name: String,
    dims: Vec<usize>,
    elements: Elements,
}

/// What a graph becomes, before it is bytes.
struct Written {
    nodes: Vec<Node>,
    constants: Vec<Constant>,
    inputs: Vec<(String, Fact)>,
    names: Vec<String>,
    outputs: Vec<Fact>,
    /// Whether the first dimensions are open.
    open: bool,
}

/// What writers of operators write to.
struct Export<'g> {
    graph: &'g Graph,
    facts: &'g [Vec<Fact>],
    nodes: Vec<Node>,
    constants: Vec<Constant>,
    /// Names of values that are already written.
    names: HashMap<ValueId, String>,
    taken: HashSet<String>,
}

/// An operator's place in the graph, for the one who writes it.
struct Site<'e, 'g> {
    export: &'e mut Export<'g>,
    inputs: &'g [ValueId],
    layer: &'g str,
    node: usize,
}

impl<'g> Export<'g> {
    /// A name that nothing has yet.
    fn fresh(&mut self, wish: String) -> String {
        let name = if self.taken.contains(&wish) {
            (1..).map(|i| format!("{wish}_{i}")).find(|name| !self.taken.contains(name)).unwrap_or_default()
        } else {
            wish
        };
        self.taken.insert(name.clone());
        name
    }

    /// The name of an initializer; what is there already is there once.
    fn constant(&mut self, wish: &str, dims: Vec<usize>, elements: Elements) -> String {
        let same = |c: &&Constant| c.dims == dims && c.elements == elements;
        if let Some(c) = self.constants.iter().find(same) {
            return c.name.clone();
        }
        let edges = || self.graph.inputs.iter().map(|(n, _)| n).chain(self.graph.outputs.iter().map(|(n, _)| n));
        let is_parameter = matches!(elements, Elements::Parameter(_));
        let free = is_parameter && self.constants.iter().all(|c| c.name != wish) && edges().all(|name| name != wish);
        let name = if free { wish.to_string() } else { self.fresh(wish.to_string()) };
        self.constants.push(Constant { name: name.clone(), dims, elements });
        name
    }

    /// The name of a value, which becomes an initializer if it is a weight.
    fn name(&mut self, v: ValueId) -> String {
        match self.names.get(&v) {
            Some(name) => name.clone(),
            None => self.weight(v, None).unwrap_or_default(),
        }
    }

    /// A weight, under other dimensions if some are given.
    fn weight(&mut self, v: ValueId, dims: Option<&[usize]>) -> Option<String> {
        let (wish, elements) = match &self.graph.nodes[v.node].source {
            Source::Parameter(p) => (self.graph.parameters[*p].name.clone(), Elements::Parameter(*p)),
            Source::Constant(t) => ("constant".into(), Elements::Constant(t.clone())),
            _ => return None,
        };
        let own = &self.facts[v.node][v.slot].dims;
        Some(self.constant(&wish, dims.unwrap_or(own).to_vec(), elements))
    }
}

impl Site<'_, '_> {
    /// Dimensions of an input.
    fn dims(&self, input: usize) -> &[usize] {
        let v = self.inputs[input];
        &self.export.facts[v.node][v.slot].dims
    }

    /// Dimensions of the first result.
    fn output(&self) -> &[usize] {
        &self.export.facts[self.node][0].dims
    }

    /// Name of an input.
    fn input(&mut self, input: usize) -> String {
        self.export.name(self.inputs[input])
    }

    /// Names of all inputs.
    fn all_inputs(&mut self) -> Vec<String> {
        (0..self.inputs.len()).map(|i| self.input(i)).collect()
    }

    /// An input of one dimension as `[c, 1, 1]`, for images of so many dimensions.
    fn per_channel(&mut self, input: usize, rank: usize) -> String {
        let mut dims = vec![1; rank - 1];
        dims[0] = self.dims(input)[0];
        if let Some(name) = self.export.weight(self.inputs[input], Some(&dims)) {
            return name;
        }
        let to: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
        let (x, to) = (self.input(input), self.ints(&to));
        self.node("Reshape", vec![x, to], vec![])
    }

    /// The name of whole numbers.
    fn ints(&mut self, values: &[i64]) -> String {
        self.export.constant("ints", vec![values.len()], Elements::Ints(values.to_vec()))
    }

    /// The name of floats.
    fn floats(&mut self, dims: &[usize], values: Vec<f32>) -> String {
        self.export.constant("floats", dims.to_vec(), Elements::Floats(values))
    }

    /// The name of a float without dimensions.
    fn float(&mut self, value: f32) -> String {
        self.floats(&[], vec![value])
    }

    /// Appends a node; the name of its output.
    fn node(&mut self, op: &'static str, inputs: Vec<String>, attributes: Vec<(&'static str, Attribute)>) -> String {
        let wish = if self.layer.is_empty() { op.to_string() } else { format!("{}.{op}", self.layer) };
        let output = self.export.fresh(wish);
        self.export.nodes.push(Node { op, name: output.clone(), inputs, output: output.clone(), attributes });
        output
    }
}

impl Written {
    fn new(graph: &Graph, inputs: &[Fact]) -> Result<Self> {
        let facts = graph.infer(inputs)?;
        let own = || graph.inputs.iter().map(|(name, _)| name).chain(graph.outputs.iter().map(|(name, _)| name));
        let edges: HashSet<&String> = own().collect();
        if edges.len() < own().count() {
            let (value, rule) = (format!("{:?}", own().collect::<Vec<_>>()), "each is another one".into());
            return Err(Error::Setting { what: "the names of inputs and outputs", value, rule });
        }
        let taken = own().chain(graph.parameters.iter().map(|p| &p.name)).cloned().collect();
        let (nodes, constants, names) = (Vec::new(), Vec::new(), HashMap::new());
        let mut export = Export { graph, facts: &facts, nodes, constants, names, taken };
        export.names.extend(graph.inputs.iter().map(|(name, node)| (ValueId::of(*node), name.clone())));
        let mut problems = Vec::new();
        for (number, node) in graph.nodes.iter().enumerate() {
            let Some(op) = node.operator() else { continue };
            let any: &dyn Any = &**op;
            let mut site = Site { export: &mut export, inputs: &node.inputs, layer: &node.layer, node: number };
            let result = match node.inputs.iter().find(|v| v.slot > 0) {
                Some(v) => Err(format!("it takes result {} of node {}, which has one in ONNX", v.slot, v.node)),
                None => operators::write(any, &mut site).unwrap_or_else(|| Err("ONNX has no such operator".into())),
            };
            let name = result.unwrap_or_else(|why| {
                let layer = if node.layer.is_empty() { String::new() } else { format!(" of layer `{}`", node.layer) };
                problems.push(format!("node {number} ({}){layer}: {why}", op.name()));
                String::new()
            });
            export.names.insert(ValueId::of(number), name);
        }
        let slots = graph.outputs.iter().filter(|(_, v)| v.slot > 0);
        problems.extend(slots.map(|(name, v)| format!("output `{name}` is result {} of node {}", v.slot, v.node)));
        if !problems.is_empty() {
            let problem = format!("{} nodes cannot be written: {}", problems.len(), problems.join("; "));
            return Err(Error::Format { file: "the ONNX file".into(), problem });
        }
        let outputs = graph.outputs.iter().map(|(_, v)| facts[v.node][v.slot].clone()).collect();
        let names = name_outputs(&mut export);
        let inputs = graph.inputs.iter().map(|(name, _)| name.clone()).zip(inputs.iter().cloned()).collect();
        Ok(Self { nodes: export.nodes, constants: export.constants, inputs, names, outputs, open: false })
    }

    /// The elements of an initializer as bytes.
    fn bytes(constant: &Constant, model: &Model) -> Result<Vec<u8>> {
        let floats = |values: &[f32]| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            let len = size_of_val(values);
            bytes.try_reserve_exact(len).map_err(|_| Error::Memory { bytes: len })?;
            values.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
            Ok(bytes)
        };
        match &constant.elements {
            Elements::Ints(values) => Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            Elements::Floats(values) => floats(values),
            Elements::Constant(t) if t.layout() == Layout::Nchw => floats(t.as_slice()),
            Elements::Constant(t) => floats(t.to_layout(Layout::Nchw)?.as_slice()),
            Elements::Parameter(p) => floats(model.state().nth(*p).map_or(&[], |(_, t)| t.as_slice())),
        }
    }

    /// The whole file.
    fn into_file(self, model: &Model) -> Result<Vec<u8>> {
        let mut graph = Message::default();
        self.nodes.iter().for_each(|node| graph.message(1, &encoded(node)));
        graph.text(2, "swath");
        for (name, fact) in &self.inputs {
            graph.message(11, &self.value_info(name, fact));
        }
        for (name, fact) in self.names.iter().zip(&self.outputs) {
            graph.message(12, &self.value_info(name, fact));
        }
        // Weights follow, each after its head, so that no message that holds them all is copied into another.
        let mut heads = Vec::with_capacity(self.constants.len());
        let mut len = 0;
        for constant in &self.constants {
            let ints = matches!(constant.elements, Elements::Ints(_));
            let bytes = constant.dims.iter().product::<usize>() * if ints { 8 } else { 4 };
            let mut tensor = Message::default();
            tensor.ints(1, constant.dims.iter().map(|&d| d as i64));
            tensor.int(2, if ints { INT64 } else { FLOAT });
            tensor.text(8, &constant.name);
            tensor.head(9, bytes);
            let tensor = tensor.into_bytes();
            let mut head = Message::default();
            head.head(5, tensor.len() + bytes);
            let mut head = head.into_bytes();
            head.extend(tensor);
            len += head.len() + bytes;
            heads.push(head);
        }
        let graph = graph.into_bytes();
        let mut out = Message::default();
        out.int(1, IR_VERSION);
        out.text(2, "swath");
        out.text(3, env!("CARGO_PKG_VERSION"));
        let mut opset = Message::default();
        opset.text(1, "");
        opset.int(2, OPSET);
        out.message(8, &opset);
        out.head(7, graph.len() + len);
        let mut out = out.into_bytes();
        let all = out.len() + graph.len() + len;
        if all > MOST_BYTES {
            let rule = format!("protobuf's files have at most {MOST_BYTES}");
            return Err(Error::Setting { what: "the number of bytes of the ONNX file", value: all.to_string(), rule });
        }
        out.try_reserve_exact(graph.len() + len).map_err(|_| Error::Memory { bytes: all })?;
        out.extend(graph);
        for (head, constant) in heads.iter().zip(&self.constants) {
            out.extend(head);
            out.extend(Self::bytes(constant, model)?);
        }
        Ok(out)
    }

    fn value_info(&self, name: &str, fact: &Fact) -> Message {
        let mut shape = Message::default();
        for (i, &dim) in fact.dims.iter().enumerate() {
            let mut dimension = Message::default();
            if i == 0 && self.open {
                dimension.text(2, "batch");
            } else {
                dimension.int(1, dim as i64);
            }
            shape.message(1, &dimension);
        }
        let mut tensor = Message::default();
        tensor.int(1, fact.element.code());
        tensor.message(2, &shape);
        let mut ty = Message::default();
        ty.message(1, &tensor);
        let mut info = Message::default();
        info.text(1, name);
        info.message(2, &ty);
        info
    }
}

/// Gives the values that are outputs the outputs' names; what is an input, a weight, or an output already is passed on by a node.
fn name_outputs(export: &mut Export<'_>) -> Vec<String> {
    let mut made: HashMap<String, String> = HashMap::new();
    let outputs = export.graph.outputs.clone();
    for (name, v) in &outputs {
        let from = export.name(*v);
        let is_made = export.nodes.iter().any(|node| node.output == from);
        if is_made && !made.contains_key(&from) && !outputs.iter().any(|(other, _)| *other == from) {
            made.insert(from, name.clone());
        } else {
            let from = made.get(&from).cloned().unwrap_or(from);
            let (output, attributes) = (name.clone(), Vec::new());
            export.nodes.push(Node { op: "Identity", name: name.clone(), inputs: vec![from], output, attributes });
        }
    }
    for node in &mut export.nodes {
        for name in node.inputs.iter_mut().chain([&mut node.output]) {
            if let Some(to) = made.get(name) {
                *name = to.clone();
            }
        }
    }
    outputs.into_iter().map(|(name, _)| name).collect()
}

fn encoded(node: &Node) -> Message {
    let mut m = Message::default();
    node.inputs.iter().for_each(|name| m.text(1, name));
    m.text(2, &node.output);
    m.text(3, &node.name);
    m.text(4, node.op);
    for (name, value) in &node.attributes {
        let mut a = Message::default();
        a.text(1, name);
        let ty = match value {
            Attribute::Float(v) => {
                a.float(2, *v);
                1
            }
            Attribute::Int(v) => {
                a.int(3, *v);
                2
            }
            Attribute::Text(v) => {
                a.text(4, v);
                3
            }
            Attribute::Ints(v) => {
                a.ints(8, v.iter().copied());
                7
            }
        };
        a.int(20, ty);
        m.message(5, &a);
    }
    m
}
