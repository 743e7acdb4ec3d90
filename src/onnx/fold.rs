//! A model at fixed shapes: everything that follows from constants and shapes is computed, and what is left has known
//! dimensions.
//!
//! `Shape`, `Constant`, `Range`, integer arithmetic and casts vanish here; `If` becomes its branch, `Loop` its
//! rounds. Dimensions are inferred from the inputs that are given, never taken from the file.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use swath_kernels::shape::checked_elements;

use super::error::OnnxError;
use super::external::External;
use super::interpret::{attributes, constants, qualified};
use super::proto::{AttributeValue, Dimension, GraphProto, ModelProto, NodeProto, ValueType, written};
use super::scope::{order, place};
use crate::ops::{
    Array, Attribute, Attributes, Call, ElementType, Fact, Inference, Known, Operator, checked_count, limited,
    operator, zeros,
};

/// The most nodes that loops may become.
const MAX_NODES: usize = 1 << 17;

/// The most nodes that are looked at, those of each round of a loop anew: loops within loops could ask for any number.
const MAX_VISITS: usize = 1 << 20;

/// The most elements that a constant computed here may have: folding is for shapes and small tables. What the file itself
/// holds may be larger, and so may its casts and transposes.
const MAX_FOLDED: usize = 1 << 22;

/// What a node reads.
#[derive(Debug, Clone)]
pub(crate) enum Operand {
    /// An optional input that is left out.
    Absent,
    /// A constant.
    Constant(Arc<Array>),
    /// What a node makes, or an input of the model.
    Value(usize),
}

/// An operator of a folded model.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The node of the file that it comes from.
    pub place: String,
    /// Where that is in the file.
    pub offset: usize,
    pub operator: &'static Operator,
    pub opset: i64,
    pub attributes: Attributes,
    pub inputs: Vec<Operand>,
    /// Values that it makes, in the order of its outputs.
    pub outputs: Vec<usize>,
}

/// A model without anything that can be computed before it runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Folded {
    /// The form of each value.
    pub facts: Vec<Fact>,
    /// The model's inputs: names and values.
    pub inputs: Vec<(String, usize)>,
    /// Operators in an order in which they can run; each makes something that an output needs.
    pub nodes: Vec<Node>,
    /// The model's outputs.
    pub outputs: Vec<(String, Operand)>,
}

/// Names and what they stand for, in a graph and those around it.
struct Scope<'s, 'a> {
    operands: HashMap<&'a str, Operand>,
    around: Option<&'s Scope<'s, 'a>>,
}

impl<'a> Scope<'_, 'a> {
    fn get(&self, name: &str) -> Option<&Operand> {
        self.operands.get(name).or_else(|| self.around?.get(name))
    }
}

/// A node of the file, for what is made from it.
struct Origin<'o> {
    place: &'o str,
    offset: usize,
    opset: i64,
}

struct Folder<'f, 'a> {
    model: &'f ModelProto<'a>,
    external: &'f External,
    folded: Folded,
    /// The most elements of a constant that is computed: a small file makes no large ones, however often it tries.
    most: usize,
    /// How many nodes were looked at.
    visits: usize,
    /// Everything that went wrong; folding goes on, so that one error tells all.
    problems: Vec<OnnxError>,
}

impl Folded {
    /// The model for inputs of these dimensions. Inputs that are not named have the file's dimensions.
    ///
    /// # Errors
    ///
    /// One [`OnnxError`] with everything that is wrong: dimensions that are open, operators that this crate lacks, nodes whose
    /// inputs do not go together, results whose dimensions depend on data.
    pub fn new(model: &ModelProto<'_>, external: &External, dims: &[(&str, &[usize])]) -> Result<Self, OnnxError> {
        let graph = &model.graph;
        let mut folder = Folder { model, external, folded: Self::default(), most: 0, visits: 0, problems: Vec::new() };
        let mut operands = folder.constants(graph)?;
        let held = |operand: &Operand| if let Operand::Constant(array) = operand { array.len() } else { 0 };
        let held: usize = operands.values().map(held).sum();
        folder.most = MAX_FOLDED.max(held.saturating_mul(4));
        for (name, _) in dims {
            if graph.free_inputs().all(|i| i.name != *name) {
                return Err(OnnxError::new(0, format!("the model has no input `{name}`")));
            }
        }
        for input in graph.free_inputs() {
            let given = dims.iter().find(|(name, _)| *name == input.name).map(|(_, dims)| *dims);
            match input_fact(input.name, &input.ty, given) {
                Ok(fact) => {
                    let value = folder.value(fact);
                    folder.folded.inputs.push((input.name.to_string(), value));
                    operands.insert(input.name, Operand::Value(value));
                }
                Err(e) => folder.problems.push(e),
            }
        }
        if !folder.problems.is_empty() {
            return Err(joined(folder.problems));
        }
        let outputs = folder.graph(graph, operands, None)?;
        for (info, operand) in graph.outputs.iter().zip(outputs) {
            match operand {
                Some(operand) => folder.folded.outputs.push((info.name.to_string(), operand)),
                None if folder.problems.is_empty() => {
                    folder.problems.push(OnnxError::new(0, format!("no node makes the output `{}`", info.name)));
                }
                None => {}
            }
        }
        if !folder.problems.is_empty() {
            return Err(joined(folder.problems));
        }
        let mut folded = folder.folded;
        folded.sweep();
        Ok(folded)
    }

    /// Drops nodes whose results nobody needs.
    pub fn sweep(&mut self) {
        let values = |operand: &Operand| match operand {
            Operand::Value(value) => Some(*value),
            _ => None,
        };
        let mut needed: HashSet<usize> = self.outputs.iter().filter_map(|(_, o)| values(o)).collect();
        let mut kept = Vec::with_capacity(self.nodes.len());
        while let Some(node) = self.nodes.pop() {
            if node.outputs.iter().any(|o| needed.contains(o)) {
                needed.extend(node.inputs.iter().filter_map(values));
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
    }
}

/// Many problems as one.
fn joined(problems: Vec<OnnxError>) -> OnnxError {
    let offset = problems[0].offset();
    match problems.len() {
        1 => problems.into_iter().next().expect("there is one"),
        n => {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            OnnxError::new(offset, format!("{n} problems: {}", list.join("; ")))
        }
    }
}

fn input_fact(name: &str, ty: &ValueType<'_>, given: Option<&[usize]>) -> Result<Fact, OnnxError> {
    let fail = |what: String| Err(OnnxError::new(0, format!("input `{name}` {what}")));
    let sized = |dims: Vec<usize>, element| match checked_count(&dims) {
        Ok(_) => Ok(Fact { dims, element }),
        Err(e) => fail(e.to_string()),
    };
    let (element, declared) = match ty {
        ValueType::Tensor { element: Some(ElementType::Str), .. } => {
            return fail("is text, which is not compiled".into());
        }
        ValueType::Tensor { element: Some(element), dims } => (*element, dims.as_deref()),
        ValueType::Tensor { element: None, .. } => return fail("has elements of a type that this crate lacks".into()),
        ValueType::Other(kind) => return fail(format!("is a {kind}, which this crate lacks")),
        ValueType::Unknown => (ElementType::F32, None),
    };
    if let Some(given) = given {
        if let Some(declared) = declared {
            let fits = declared.len() == given.len()
                && declared.iter().zip(given).all(|(d, g)| !matches!(d, Dimension::Fixed(d) if d != g));
            if !fits {
                return fail(format!("has the dimensions {}, which {given:?} does not fit", written(declared)));
            }
        }
        return sized(given.to_vec(), element);
    }
    let Some(declared) = declared else { return fail("has open dimensions, which must be given".into()) };
    let dims: Option<Vec<usize>> =
        declared.iter().map(|d| if let Dimension::Fixed(d) = d { Some(*d) } else { None }).collect();
    match dims {
        Some(dims) => sized(dims, element),
        None => fail(format!("has the open dimensions {declared:?}, which must be given")),
    }
}

impl<'a> Folder<'_, 'a> {
    fn value(&mut self, fact: Fact) -> usize {
        self.folded.facts.push(fact);
        self.folded.facts.len() - 1
    }

    fn constants(&self, graph: &GraphProto<'a>) -> Result<HashMap<&'a str, Operand>, OnnxError> {
        let arrays = constants(graph, self.external)?;
        Ok(arrays.into_iter().map(|(name, array)| (name, Operand::Constant(array))).collect())
    }

    /// Folds the nodes of a graph; its outputs, `None` where a node in between failed.
    fn graph(
        &mut self,
        graph: &GraphProto<'a>,
        operands: HashMap<&'a str, Operand>,
        around: Option<&Scope<'_, 'a>>,
    ) -> Result<Vec<Option<Operand>>, OnnxError> {
        let mut scope = Scope { operands, around };
        if around.is_some() {
            scope.operands.extend(self.constants(graph)?);
        }
        // Names whose nodes failed: what depends on them says nothing more.
        let mut failed: HashSet<&str> = HashSet::new();
        for i in order(graph)? {
            let node = &graph.nodes[i];
            self.visits += 1;
            if self.visits > MAX_VISITS {
                let what = format!("more than {MAX_VISITS} nodes, loops unrolled");
                return Err(OnnxError::new(node.offset, what).within(|| place(i, node)));
            }
            let mut inputs = Vec::with_capacity(node.inputs.len());
            let mut blocked = false;
            for &name in &node.inputs {
                match (name, scope.get(name)) {
                    ("", _) => inputs.push(Operand::Absent),
                    (_, Some(operand)) => inputs.push(operand.clone()),
                    _ if failed.contains(name) => blocked = true,
                    _ => {
                        let what = format!("its input `{name}` is nowhere defined");
                        self.problems.push(OnnxError::new(node.offset, what).within(|| place(i, node)));
                        blocked = true;
                    }
                }
            }
            let outputs = if blocked { None } else { self.checked(node, i, inputs, &scope) };
            match outputs {
                Some(outputs) => scope.operands.extend(node.outputs.iter().copied().zip(outputs)),
                None => failed.extend(&node.outputs),
            }
        }
        Ok(graph.outputs.iter().map(|o| scope.get(o.name).cloned()).collect())
    }

    /// A node's outputs; what is wrong with it goes to the other problems.
    fn checked(
        &mut self,
        node: &NodeProto<'a>,
        index: usize,
        inputs: Vec<Operand>,
        scope: &Scope<'_, 'a>,
    ) -> Option<Vec<Operand>> {
        let place = place(index, node);
        match self.node(node, &place, inputs, scope) {
            Ok(outputs) => outputs,
            Err(e) => {
                self.problems.push(e.within(|| place));
                None
            }
        }
    }

    fn node(
        &mut self,
        node: &NodeProto<'a>,
        place: &str,
        inputs: Vec<Operand>,
        scope: &Scope<'_, 'a>,
    ) -> Result<Option<Vec<Operand>>, OnnxError> {
        let origin = Origin { place, offset: node.offset, opset: self.model.opset(node.domain).unwrap_or(1) };
        let fail = |what: String| Err(OnnxError::new(node.offset, what));
        let attributes = attributes(node, self.external)?;
        let outputs = node.outputs.iter().rposition(|o| !o.is_empty()).map_or(0, |i| i + 1);
        match &*qualified(node) {
            "If" => match constant::<bool>(inputs.first()) {
                Some(true) => self.inner(node, "then_branch", Vec::new(), scope).map(Some),
                Some(false) => self.inner(node, "else_branch", Vec::new(), scope).map(Some),
                None => fail("its condition is only known when it runs".into()),
            },
            "Loop" => self.rounds(node, &origin, inputs, scope).map(Some),
            "Scan" => fail("Scan is not compiled; the interpreter runs it".into()),
            // Its form decides, not its elements.
            "Shape" | "Size" => {
                let zero;
                let array = match inputs.first() {
                    Some(Operand::Constant(array)) => array,
                    Some(Operand::Value(value)) => {
                        let fact = &self.folded.facts[*value];
                        zero = zeros(&fact.dims, ElementType::U8)
                            .map_err(|e| OnnxError::new(node.offset, e.to_string()))?;
                        &zero
                    }
                    _ => return fail("input 0 is missing".into()),
                };
                let operator = operator(node.op_type).expect("this crate has Shape and Size");
                let call = Call { opset: origin.opset, attributes: &attributes, inputs: &[Some(array)], outputs };
                let dims = operator.run(&call).map_err(|e| OnnxError::new(node.offset, e.to_string()))?;
                Ok(Some(dims.into_iter().map(|a| Operand::Constant(Arc::new(a))).collect()))
            }
            name => {
                let names = || attributes.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(", ");
                let Some(operator) = operator(name) else {
                    return fail(format!("this crate lacks the operator (attributes: {})", names()));
                };
                self.emit(&origin, operator, attributes, inputs, outputs).map(Some)
            }
        }
    }

    /// Adds an operator, or computes it if all of its inputs are constants.
    fn emit(
        &mut self,
        origin: &Origin<'_>,
        operator: &'static Operator,
        attributes: Attributes,
        inputs: Vec<Operand>,
        outputs: usize,
    ) -> Result<Vec<Operand>, OnnxError> {
        let fail = |what: String| OnnxError::new(origin.offset, what);
        // Nothing changes: the value itself.
        if let ("Identity" | "Dropout", 0 | 1, Some(input)) = (operator.name, outputs, inputs.first()) {
            return Ok(vec![input.clone()]);
        }
        let constants: Option<Vec<Option<&Array>>> = inputs
            .iter()
            .map(|input| match input {
                Operand::Absent => Some(None),
                Operand::Constant(array) => Some(Some(&**array)),
                Operand::Value(_) => None,
            })
            .collect();
        if let Some(inputs) = constants {
            let call = Call { opset: origin.opset, attributes: &attributes, inputs: &inputs, outputs };
            let results = limited(self.most, || operator.run(&call)).map_err(|e| fail(e.to_string()))?;
            return Ok(results.into_iter().map(|a| Operand::Constant(Arc::new(a))).collect());
        }
        let known: Vec<Option<Known<'_>>> = inputs
            .iter()
            .map(|input| match input {
                Operand::Absent => None,
                Operand::Constant(array) => Some(Known::Constant(array)),
                Operand::Value(value) => Some(Known::Fact(&self.folded.facts[*value])),
            })
            .collect();
        let inference = Inference { operator, opset: origin.opset, attributes: &attributes, inputs: &known, outputs };
        let mut facts = inference.facts().map_err(|e| fail(e.to_string()))?;
        if facts.len() < outputs {
            return Err(fail(format!("{} outputs, but {outputs} are wanted", facts.len())));
        }
        facts.truncate(outputs);
        if facts.iter().any(|fact| fact.element == ElementType::Str) {
            return Err(fail("it makes text, which is not compiled".into()));
        }
        facts
            .iter()
            .try_for_each(|f| checked_elements("result", &f.dims).map(|_| ()))
            .map_err(|e| fail(e.to_string()))?;
        // A cast to the type that the elements have.
        if let ("Cast" | "CastLike", [fact], Some(Operand::Value(value))) = (operator.name, &facts[..], inputs.first())
            && *fact == self.folded.facts[*value]
        {
            return Ok(vec![Operand::Value(*value)]);
        }
        if self.folded.nodes.len() == MAX_NODES {
            return Err(fail(format!("more than {MAX_NODES} nodes, loops unrolled")));
        }
        let values: Vec<usize> = facts.into_iter().map(|fact| self.value(fact)).collect();
        self.folded.nodes.push(Node {
            place: origin.place.to_string(),
            offset: origin.offset,
            operator,
            opset: origin.opset,
            attributes,
            inputs,
            outputs: values.clone(),
        });
        Ok(values.into_iter().map(Operand::Value).collect())
    }

    /// The outputs of a graph in an attribute.
    fn inner(
        &mut self,
        node: &NodeProto<'a>,
        name: &str,
        inputs: Vec<Operand>,
        scope: &Scope<'_, 'a>,
    ) -> Result<Vec<Operand>, OnnxError> {
        let Some(AttributeValue::Graph(graph)) = node.attribute(name) else {
            return Err(OnnxError::new(node.offset, format!("it has no graph `{name}`")));
        };
        let operands = graph.inputs.iter().map(|i| i.name).zip(inputs).collect();
        let outputs = self.graph(graph, operands, Some(scope))?;
        let complete: Option<Vec<Operand>> = outputs.into_iter().collect();
        complete.ok_or_else(|| OnnxError::new(node.offset, format!("its graph `{name}` lacks an output")))
    }

    /// A loop whose number of rounds is known.
    fn rounds(
        &mut self,
        node: &NodeProto<'a>,
        origin: &Origin<'_>,
        inputs: Vec<Operand>,
        scope: &Scope<'_, 'a>,
    ) -> Result<Vec<Operand>, OnnxError> {
        let fail = |what: &str| Err(OnnxError::new(node.offset, what));
        let open = |index: usize| matches!(inputs.get(index), Some(Operand::Value(_)));
        if open(0) || open(1) {
            return fail("the number of its rounds is only known when it runs");
        }
        let most = constant::<i64>(inputs.first()).unwrap_or(i64::MAX);
        let mut goes_on = constant::<bool>(inputs.get(1)).unwrap_or(true);
        let mut state: Vec<Operand> = inputs.iter().skip(2).cloned().collect();
        let states = state.len();
        let mut stacked: Vec<Vec<Operand>> = vec![Vec::new(); node.outputs.len().saturating_sub(states)];
        let mut round = 0;
        while goes_on && round < most {
            let fixed = |array: Array| Operand::Constant(Arc::new(array));
            let mut inputs = vec![fixed(Array::scalar(round)), fixed(Array::scalar(goes_on))];
            inputs.append(&mut state);
            let mut outputs = self.inner(node, "body", inputs, scope)?.into_iter();
            goes_on = match constant::<bool>(outputs.next().as_ref()) {
                Some(goes_on) => goes_on,
                None => return fail("the number of its rounds is only known when it runs"),
            };
            state.extend(outputs.by_ref().take(states));
            stacked.iter_mut().zip(outputs).for_each(|(all, next)| all.push(next));
            round += 1;
            if round == MAX_NODES as i64 {
                return fail("it has too many rounds");
            }
        }
        let find = |name: &str| operator(name).expect("this crate has Unsqueeze and Concat");
        for all in stacked {
            if all.is_empty() {
                return fail("a loop without a round has no output to stack");
            }
            let axis = Attributes::new().with("axes", Attribute::Ints(vec![0]));
            let mut apart = Vec::with_capacity(all.len());
            for next in all {
                // The attribute is the form of opsets before 13.
                let origin = Origin { opset: 11, ..*origin };
                apart.extend(self.emit(&origin, find("Unsqueeze"), axis.clone(), vec![next], 1)?);
            }
            let along = Attributes::new().with("axis", Attribute::Int(0));
            state.extend(self.emit(origin, find("Concat"), along, apart, 1)?);
        }
        Ok(state)
    }
}

/// The one element of a constant.
fn constant<T: crate::ops::Element>(operand: Option<&Operand>) -> Option<T> {
    match operand {
        Some(Operand::Constant(array)) => match array.elements::<T>() {
            Some([one]) => Some(one.clone()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_that_do_not_fit_are_told_as_people_write_them() {
        let dims = Some(vec![Dimension::Named("N\n"), Dimension::Fixed(48), Dimension::Unknown]);
        let ty = ValueType::Tensor { element: Some(ElementType::F32), dims };
        let e = input_fact("x", &ty, Some(&[1, 40, 3])).unwrap_err().to_string();
        assert!(e.ends_with("input `x` has the dimensions [N\\n, 48, ?], which [1, 40, 3] does not fit"), "{e}");
        assert_eq!(input_fact("x", &ty, Some(&[1, 48, 3])).unwrap().dims, [1, 48, 3]);
    }
}
