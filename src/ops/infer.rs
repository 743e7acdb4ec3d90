//! What an operator's outputs will be, known from the dimensions and types of its inputs alone.

use std::fmt;

use super::array::zeros;
use super::call::dims as checked_dims;
use super::conv::groups;
use super::error::{OpResult, refuse};
use super::reduce::reduced_dims;
use super::resize::{Sampler, resized_dims};
use super::room::count;
use super::shape::{concat_dims, padded_dims};
use super::view::broadcast_dims;
use super::window::{spatial_of, windows};
use super::{Array, Attributes, Call, ElementType, Operator};

/// Extents and element type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Extents, outermost first; `[n, c, h, w]` for images whatever their layout.
    pub dims: Vec<usize>,
    /// Type of the elements.
    pub element: ElementType,
}

impl Fact {
    /// Floats of these extents.
    pub fn f32(dims: impl Into<Vec<usize>>) -> Self {
        Self { dims: dims.into(), element: ElementType::F32 }
    }

    /// Number of elements; `usize::MAX` where that overflows.
    pub fn len(&self) -> usize {
        count(&self.dims).unwrap_or(usize::MAX)
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims)?;
        match self.element {
            ElementType::F32 => Ok(()),
            other => write!(f, " {other}"),
        }
    }
}

/// An input: a constant, or something of which only the form is known.
#[derive(Debug, Clone, Copy)]
pub enum Known<'a> {
    /// A constant.
    Constant(&'a Array),
    /// A form.
    Fact(&'a Fact),
}

impl Known<'_> {
    fn dims(&self) -> &[usize] {
        match self {
            Self::Constant(array) => array.dims(),
            Self::Fact(fact) => &fact.dims,
        }
    }

    fn element(&self) -> ElementType {
        match self {
            Self::Constant(array) => array.element(),
            Self::Fact(fact) => fact.element,
        }
    }

    fn fact(&self) -> Fact {
        Fact { dims: self.dims().to_vec(), element: self.element() }
    }
}

/// An operator with what is known of its inputs.
#[derive(Debug, Clone, Copy)]
pub struct Inference<'a> {
    /// The operator.
    pub operator: &'static Operator,
    /// The version of the operators.
    pub opset: i64,
    /// Attributes.
    pub attributes: &'a Attributes,
    /// Inputs; `None` where an optional one is left out.
    pub inputs: &'a [Option<Known<'a>>],
    /// How many outputs are wanted.
    pub outputs: usize,
}

/// Operators whose results have the form of their first input.
const SAME: &[&str] = &[
    "Abs",
    "Neg",
    "Sign",
    "Relu",
    "Floor",
    "Ceil",
    "Round",
    "Sqrt",
    "Reciprocal",
    "Exp",
    "Log",
    "Sin",
    "Cos",
    "Tan",
    "Asin",
    "Acos",
    "Atan",
    "Sinh",
    "Cosh",
    "Tanh",
    "Asinh",
    "Acosh",
    "Atanh",
    "Erf",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "HardSwish",
    "swath.HardSwishAffine",
    "Mish",
    "LeakyRelu",
    "Elu",
    "Celu",
    "Selu",
    "ThresholdedRelu",
    "HardSigmoid",
    "Swish",
    "Gelu",
    "Shrink",
    "Clip",
    "Not",
    "BitwiseNot",
    "PRelu",
    "Identity",
    "Softmax",
    "LogSoftmax",
    "Hardmax",
    "LpNormalization",
    "LRN",
    "MeanVarianceNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "RMSNormalization",
    "Trilu",
    "CumSum",
    "CumProd",
    "ScatterElements",
    "ScatterND",
    "Scatter",
    "TensorScatter",
    "ReverseSequence",
    "RotaryEmbedding",
];

/// Operators whose inputs broadcast.
const BROADCAST: &[&str] = &[
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Mod",
    "Pow",
    "Max",
    "Min",
    "Sum",
    "Mean",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "BitShift",
];

/// Operators whose inputs broadcast to truth values.
const COMPARISONS: &[&str] = &["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Xor"];

/// Operators that take elements by index: run on bytes, they show their form.
const GATHERS: &[&str] = &["Gather", "GatherElements", "GatherND"];

/// Inputs that decide the form of the result, so that it is unknown as long as they are.
fn shaping(name: &str) -> &'static [usize] {
    match name {
        "Reshape" | "Expand" | "Unsqueeze" | "Squeeze" | "Split" | "TopK" | "CenterCropPad" | "Upsample"
        | "AffineGrid" | "CumSum" | "OneHot" | "Compress" => &[1],
        "Tile" | "Col2Im" => &[1, 2],
        "Slice" => &[1, 2, 3, 4],
        "Pad" => &[1, 3],
        "Resize" => &[1, 2, 3],
        "MaxUnpool" => &[2],
        "NonZero" | "Unique" | "ConstantOfShape" => &[0],
        "Range" => &[0, 1, 2],
        "NonMaxSuppression" => &[0, 1, 2, 3, 4],
        _ if name.starts_with("Reduce") => &[1],
        _ => &[],
    }
}

/// Dimensions of what an operator, by its name, makes of an input of these dimensions and this type.
type Rule = fn(&str, &Call<'_>, &[usize], ElementType) -> OpResult<Vec<usize>>;

impl Inference<'_> {
    /// The outputs' forms.
    ///
    /// # Errors
    ///
    /// If the inputs do not go together, or if the form depends on elements that are not known.
    pub fn facts(&self) -> OpResult<Vec<Fact>> {
        let name = self.operator.name;
        for &i in shaping(name) {
            if let Some(Some(Known::Fact(_))) = self.inputs.get(i) {
                refuse!("what it makes of input {i} has dimensions that are only known when it runs");
            }
        }
        // The rules below look at the first one alone.
        let least = match name {
            "Max" | "Min" | "Sum" | "Mean" => 1,
            "InstanceNormalization" | "GroupNormalization" => 3,
            "PRelu" => 2,
            _ if BROADCAST.contains(&name) || COMPARISONS.contains(&name) => 2,
            _ => 0,
        };
        (0..least).try_for_each(|i| self.input(i).map(|_| ()))?;
        if SAME.contains(&name) {
            return Ok(vec![self.input(0)?.fact()]);
        }
        if BROADCAST.contains(&name) {
            return Ok(vec![Fact { dims: self.broadcast(0)?, element: self.input(0)?.element() }]);
        }
        if COMPARISONS.contains(&name) {
            return Ok(vec![Fact { dims: self.broadcast(0)?, element: ElementType::Bool }]);
        }
        if let Some(mover) = self.operator.mover() {
            let (x, constants) = (self.input(0)?, self.constants());
            let moves = mover(&self.call(&constants), x.dims())?;
            return Ok(moves.into_iter().map(|m| Fact { dims: m.dims, element: x.element() }).collect());
        }
        match name {
            "Where" => Ok(vec![Fact { dims: self.broadcast(0)?, element: self.input(1)?.element() }]),
            "Cast" => match ElementType::from_code(self.call(&[]).int("to", 0)?) {
                Some(element) => Ok(vec![Fact { dims: self.input(0)?.dims().to_vec(), element }]),
                None => refuse!("elements of type number {}, which this crate lacks", self.call(&[]).int("to", 0)?),
            },
            "IsNaN" | "IsInf" => Ok(vec![Fact { dims: self.input(0)?.dims().to_vec(), element: ElementType::Bool }]),
            "CastLike" => Ok(vec![Fact { dims: self.input(0)?.dims().to_vec(), element: self.input(1)?.element() }]),
            "Conv" | "com.microsoft.FusedConv" | "DeformConv" | "ConvInteger" => self.conv(1, self.conv_element()?),
            "ConvTranspose" => self.conv_transpose(),
            "QLinearConv" => self.conv(3, self.input(7)?.element()),
            "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => {
                let dims = self.input(0)?.dims();
                let dims = dims.iter().enumerate().map(|(i, &d)| if i < 2 { d } else { 1 }).collect();
                Ok(vec![Fact { dims, element: self.input(0)?.element() }])
            }
            "MaxPool" | "AveragePool" | "LpPool" => self.pool(),
            "MatMul" | "MatMulInteger" | "QLinearMatMul" => self.matmul(),
            "Gemm" => self.gemm(),
            "BatchNormalization" if self.outputs == 1 => Ok(vec![self.input(0)?.fact()]),
            "QuantizeLinear" if self.inputs.len() > 2 => {
                Ok(vec![Fact { dims: self.input(0)?.dims().to_vec(), element: self.input(2)?.element() }])
            }
            "LSTM" | "GRU" | "RNN" => self.recurrent(),
            "GridSample" => {
                Sampler::new(&self.call(&[]))?;
                let (x, grid) = (self.input(0)?, self.input(1)?);
                Ok(vec![Fact { dims: Sampler::dims(x.dims(), grid.dims())?, element: x.element() }])
            }
            "Resize" | "Upsample" => self.same_type(resized_dims),
            "Pad" | "CenterCropPad" => self.same_type(padded_dims),
            _ if name.starts_with("Reduce") => self.same_type(reduced_dims),
            "Concat" => self.concat(),
            _ if GATHERS.contains(&name) => self.gathered(),
            _ => self.run(),
        }
    }

    fn input(&self, index: usize) -> OpResult<&Known<'_>> {
        match self.inputs.get(index) {
            Some(Some(known)) => Ok(known),
            _ => refuse!("input {index} is missing"),
        }
    }

    fn call<'c>(&'c self, inputs: &'c [Option<&'c Array>]) -> Call<'c> {
        Call { opset: self.opset, attributes: self.attributes, inputs, outputs: self.outputs }
    }

    fn broadcast(&self, from: usize) -> OpResult<Vec<usize>> {
        // Before opset 7, the second input may be aligned otherwise, but never grows the first.
        if self.opset < 7 && self.attributes.get("axis").is_some() {
            return Ok(self.input(from)?.dims().to_vec());
        }
        let inputs = self.inputs[from..].iter().flatten();
        inputs.into_iter().try_fold(Vec::new(), |dims, input| broadcast_dims(&dims, input.dims()))
    }

    fn conv_element(&self) -> OpResult<ElementType> {
        Ok(if self.operator.name == "ConvInteger" { ElementType::I32 } else { self.input(0)?.element() })
    }

    fn conv(&self, weights: usize, element: ElementType) -> OpResult<Vec<Fact>> {
        let (x, w) = (self.input(0)?.dims(), self.input(weights)?.dims());
        let groups = groups(&self.call(&[]))?;
        let fits = w.len() == x.len() && w.len() > 1 && w[0].is_multiple_of(groups);
        if !fits || w[1].checked_mul(groups) != Some(x[1]) {
            refuse!("weights {w:?} in {groups} groups for an input {x:?}");
        }
        let axes = windows(&self.call(&[]), spatial_of(x)?, &w[2..], false)?;
        let dims = [x[0], w[0]].into_iter().chain(axes.iter().map(|a| a.output)).collect();
        Ok(vec![Fact { dims, element }])
    }

    fn conv_transpose(&self) -> OpResult<Vec<Fact>> {
        let (x, w, call) = (self.input(0)?, self.input(1)?.dims(), self.call(&[]));
        let axes = super::conv::transposed_axes(&call, x.dims(), w)?;
        let dims = [x.dims()[0], w[1].saturating_mul(groups(&call)?)]
            .into_iter()
            .chain(axes.iter().map(|a| a.output))
            .collect();
        Ok(vec![Fact { dims, element: x.element() }])
    }

    fn pool(&self) -> OpResult<Vec<Fact>> {
        let (x, call) = (self.input(0)?, self.call(&[]));
        let Some(kernel) = call.ints("kernel_shape")? else { refuse!("kernel_shape is missing") };
        let ceil = call.flag("ceil_mode", false)?;
        let axes = windows(&call, spatial_of(x.dims())?, &checked_dims(kernel)?, ceil)?;
        let dims: Vec<usize> = x.dims()[..2].iter().copied().chain(axes.iter().map(|a| a.output)).collect();
        Ok(vec![Fact { dims: dims.clone(), element: x.element() }, Fact { dims, element: ElementType::I64 }])
    }

    fn matmul(&self) -> OpResult<Vec<Fact>> {
        let name = self.operator.name;
        let (a, b) = (self.input(0)?, self.input(if name == "QLinearMatMul" { 3 } else { 1 })?);
        let element = match name {
            "MatMulInteger" => ElementType::I32,
            "QLinearMatMul" => self.input(7)?.element(),
            _ => a.element(),
        };
        let (a, b) = (a.dims(), b.dims());
        let (Some(&inner), Some(&inner_too)) = (a.last(), b.get(b.len().saturating_sub(2))) else {
            refuse!("a matrix product of {a:?} and {b:?}");
        };
        if inner != inner_too {
            refuse!("a matrix product of {a:?} and {b:?}: {inner} and {inner_too} do not agree");
        }
        let lead = |dims: &'_ [usize]| dims[..dims.len().saturating_sub(2)].to_vec();
        let mut dims = broadcast_dims(&lead(a), &lead(b))?;
        dims.extend((a.len() > 1).then(|| a[a.len() - 2]));
        dims.extend((b.len() > 1).then(|| b[b.len() - 1]));
        Ok(vec![Fact { dims, element }])
    }

    fn gemm(&self) -> OpResult<Vec<Fact>> {
        let call = self.call(&[]);
        let (a, b) = (self.input(0)?, self.input(1)?);
        let ([m, k], [k_too, n]) = (a.dims(), b.dims()) else {
            refuse!("matrices {:?} and {:?}", a.dims(), b.dims());
        };
        let (m, k) = if call.flag("transA", false)? { (k, m) } else { (m, k) };
        let (k_too, n) = if call.flag("transB", false)? { (n, k_too) } else { (k_too, n) };
        if k != k_too {
            refuse!("a matrix product of {:?} and {:?}: {k} and {k_too} do not agree", a.dims(), b.dims());
        }
        Ok(vec![Fact { dims: vec![*m, *n], element: a.element() }])
    }

    /// Runs no steps of it, as many as they are.
    fn recurrent(&self) -> OpResult<Vec<Fact>> {
        let at = usize::from(self.call(&[]).flag("layout", false)?);
        let (mut x, mut inputs) = (self.input(0)?.fact(), self.inputs.to_vec());
        let Some(steps) = x.dims.get_mut(at).map(core::mem::take) else { refuse!("an input {:?}", x.dims) };
        inputs[0] = Some(Known::Fact(&x));
        // Lengths would be longer.
        if let Some(lengths) = inputs.get_mut(4) {
            *lengths = None;
        }
        let mut facts = Inference { inputs: &inputs, ..*self }.run()?;
        facts[0].dims[at] = steps;
        Ok(facts)
    }

    /// The inputs that are constants.
    fn constants(&self) -> Vec<Option<&Array>> {
        let constants = self.inputs.iter().map(|input| match *input {
            Some(Known::Constant(array)) => Some(array),
            _ => None,
        });
        constants.collect()
    }

    /// Elements of the type of input 0, in the dimensions that a rule makes of its.
    fn same_type(&self, rule: Rule) -> OpResult<Vec<Fact>> {
        let (x, constants) = (self.input(0)?, self.constants());
        let dims = rule(self.operator.name, &self.call(&constants), x.dims(), x.element())?;
        Ok(vec![Fact { dims, element: x.element() }])
    }

    fn concat(&self) -> OpResult<Vec<Fact>> {
        let all = (0..self.inputs.len()).map(|i| self.input(i)).collect::<OpResult<Vec<_>>>()?;
        let element = self.input(0)?.element();
        if let Some(other) = all.iter().find(|x| x.element() != element) {
            refuse!("elements of the types {element} and {}", other.element());
        }
        let dims: Vec<&[usize]> = all.iter().map(|x| x.dims()).collect();
        Ok(vec![Fact { dims: concat_dims(&self.call(&[]), &dims)?.1, element }])
    }

    /// Runs it on bytes in place of the elements.
    fn gathered(&self) -> OpResult<Vec<Fact>> {
        let element = self.input(0)?.element();
        let mut arrays = Vec::with_capacity(self.inputs.len());
        for (i, input) in self.inputs.iter().enumerate() {
            arrays.push(match input {
                Some(known) if i == 0 => Some(zeros(known.dims(), ElementType::U8)?),
                Some(Known::Constant(array)) => Some((*array).clone()),
                Some(Known::Fact(fact)) => Some(zeros(&fact.dims, fact.element)?),
                None => None,
            });
        }
        let facts = self.facts_of(&arrays)?;
        Ok(facts.into_iter().map(|fact| Fact { element, ..fact }).collect())
    }

    /// Runs it on zeros in place of the elements that are unknown.
    fn run(&self) -> OpResult<Vec<Fact>> {
        let mut arrays = Vec::with_capacity(self.inputs.len());
        for input in self.inputs {
            arrays.push(match input {
                Some(Known::Constant(array)) => Some((*array).clone()),
                Some(Known::Fact(fact)) => Some(zeros(&fact.dims, fact.element)?),
                None => None,
            });
        }
        self.facts_of(&arrays)
    }

    fn facts_of(&self, arrays: &[Option<Array>]) -> OpResult<Vec<Fact>> {
        let inputs: Vec<Option<&Array>> = arrays.iter().map(Option::as_ref).collect();
        let outputs = self.operator.run(&self.call(&inputs))?;
        Ok(outputs.iter().map(|a| Fact { dims: a.dims().to_vec(), element: a.element() }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Attribute, operator};
    use super::*;

    /// The error of an operator's inference on a form and constants, and that of running it on zeros.
    fn refused(name: &str, x: &Fact, constants: &[Array], attributes: &Attributes) -> [Option<String>; 2] {
        let operator = operator(name).unwrap();
        let known: Vec<Option<Known<'_>>> =
            [Some(Known::Fact(x))].into_iter().chain(constants.iter().map(|c| Some(Known::Constant(c)))).collect();
        let inference = Inference { operator, opset: 18, attributes, inputs: &known, outputs: 1 };
        let zeros = zeros(&x.dims, x.element).unwrap();
        let inputs: Vec<Option<&Array>> = [&zeros].into_iter().chain(constants).map(Some).collect();
        let run = operator.run(&Call { opset: 18, attributes, inputs: &inputs, outputs: 1 });
        [inference.facts().err().map(|e| e.to_string()), run.err().map(|e| e.to_string())]
    }

    fn vector(values: &[i64]) -> Array {
        Array::vector(values.to_vec())
    }

    #[test]
    fn what_running_refuses_inference_refuses() {
        let none = Attributes::new();
        let image = |element| Fact { dims: vec![1, 2, 4, 6], element };
        let (f32s, truths) = (image(ElementType::F32), image(ElementType::Bool));
        let linear = Attributes::new().with("mode", Attribute::Text("linear".into()));
        let twice = Attributes::new().with("axes", Attribute::Ints(vec![2, -2]));
        let (empty, sizes) = (Array::vector(Vec::<f32>::new()), vector(&[1, 2, 8, 12]));
        let cases: [(&str, &Fact, Vec<Array>, &Attributes); 10] = [
            ("Resize", &f32s, vec![empty.clone(), empty.clone(), vector(&[1, 2])], &twice),
            ("Resize", &truths, vec![empty.clone(), empty.clone(), sizes.clone()], &linear),
            ("ReduceSum", &truths, vec![vector(&[1])], &none),
            ("Pad", &f32s, vec![vector(&[0, 0, 0, 1, 0, 0, 0, 0]), vector(&[1])], &none),
            ("Pad", &f32s, vec![vector(&[i64::MIN, 0, 0, 0, i64::MAX, 0, 0, 0])], &none),
            ("Pad", &f32s, vec![vector(&[0, 0, 0, 1 << 40, 0, 0, 0, 0])], &none),
            ("Split", &f32s, vec![vector(&[i64::MAX, i64::MAX, 3])], &none),
            ("Slice", &f32s, vec![vector(&[0]), vector(&[4]), vector(&[2]), vector(&[0])], &none),
            ("Reshape", &f32s, vec![vector(&[5, -1])], &none),
            ("Unsqueeze", &f32s, vec![vector(&[7])], &none),
        ];
        for (name, x, constants, attributes) in cases {
            let [inferred, run] = refused(name, x, &constants, attributes);
            assert!(inferred.is_some() && run.is_some(), "{name}: {inferred:?}, {run:?}");
        }
        // And what neither does.
        let allowed: [(&str, &Fact, Vec<Array>, &Attributes); 3] = [
            ("Resize", &truths, vec![empty.clone(), empty, sizes], &none),
            ("ReduceMax", &truths, vec![vector(&[1])], &none),
            ("Slice", &f32s, vec![vector(&[3]), vector(&[4]), vector(&[2]), vector(&[i64::MAX])], &none),
        ];
        for (name, x, constants, attributes) in allowed {
            assert_eq!(refused(name, x, &constants, attributes), [None, None], "{name}");
        }
    }

    #[test]
    fn extents_that_overflow_beside_a_zero_are_errors() {
        let huge = Array::of([1, 0, 1 << 62, 1], Vec::<f32>::new());
        let blocks = Attributes::new().with("blocksize", Attribute::Int(4));
        for name in ["DepthToSpace", "SpaceToDepth"] {
            let call = Call { opset: 18, attributes: &blocks, inputs: &[Some(&huge)], outputs: 1 };
            // An answer of any kind.
            let _ = operator(name).unwrap().run(&call);
        }
        let (none, long) = (Attributes::new(), Array::of([1, 1 << 60, 0], Vec::<f32>::new()));
        let lens = vector(&[0]);
        let axes = none.clone().with("batch_axis", Attribute::Int(0)).with("time_axis", Attribute::Int(1));
        let call = Call { opset: 18, attributes: &axes, inputs: &[Some(&long), Some(&lens)], outputs: 1 };
        assert_eq!(operator("ReverseSequence").unwrap().run(&call).unwrap()[0].dims(), [1, 1 << 60, 0]);
    }
}
