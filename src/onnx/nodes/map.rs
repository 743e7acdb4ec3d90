//! Functions of one value, element by element, that are no activations.

use swath_kernels::layout::Layout;

use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::{Group, Lower, Operands, Operator, Step};
use crate::par;

/// A function of each element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Map {
    pub name: &'static str,
    pub f: fn(f32) -> f32,
}

impl Map {
    /// The function of ONNX's name.
    pub fn named(name: &str) -> Option<Self> {
        let (name, f): (&'static str, fn(f32) -> f32) = match name {
            "Sqrt" => ("Sqrt", f32::sqrt),
            "Exp" => ("Exp", f32::exp),
            "Log" => ("Log", f32::ln),
            "Neg" => ("Neg", |x| -x),
            "Abs" => ("Abs", f32::abs),
            "Floor" => ("Floor", f32::floor),
            "Ceil" => ("Ceil", f32::ceil),
            "Round" => ("Round", f32::round_ties_even),
            "Reciprocal" => ("Reciprocal", f32::recip),
            "Erf" => ("Erf", |x| crate::ops::erf(x.into()) as f32),
            "Sin" => ("Sin", f32::sin),
            "Cos" => ("Cos", f32::cos),
            "Softsign" => ("Softsign", |x| x / (1.0 + x.abs())),
            _ => return None,
        };
        Some(Self { name, f })
    }
}

impl Operator for Map {
    fn name(&self) -> &'static str {
        self.name
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(inputs[0].to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.inputs(group)[0];
        let buffer = cx.want(x, Layout::Nchw)?;
        cx.step(group, Layout::Nchw, Box::new(MapStep(*self)), vec![buffer], 0)
    }
}

struct MapStep(Map);

impl Step for MapStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (x, f) = (x.get(0), self.0.f);
        par::for_each_piece(y, 1, 8, |at, y| {
            y.iter_mut().zip(&x[at.start..]).for_each(|(y, x)| *y = f(*x));
        });
    }

    fn describe(&self) -> String {
        self.0.name.into()
    }
}
