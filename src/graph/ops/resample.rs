//! What interpolation and padding share: maps along height and width that kernels do from tables, and their gradient.

use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::resample::{Filter, PadMode, Resample, Size};
use swath_kernels::shape::Padding;

use super::four;
use crate::conv::Scratch;
use crate::error::Result;
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Step, pass};
use crate::graph::{Gradient, Group, Lower, Operator};

/// A map from images to images, the same for each channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Map {
    /// Interpolation.
    Resize(Size, Filter),
    /// Padding.
    Pad(Padding, PadMode),
}

impl Map {
    /// Its tables for images of these extents.
    fn tables(self, layout: Layout, dims: [usize; 4]) -> Result<Resample> {
        Ok(match self {
            Map::Resize(size, filter) => Resample::resize(layout, dims, size, filter)?,
            Map::Pad(pad, mode) => Resample::pad(layout, dims, pad, mode)?,
        })
    }

    /// Appends the map of input 0, in the layout that it has.
    pub(super) fn lower(self, group: &Group, cx: &mut Lower<'_>, name: String) -> Result<()> {
        let x = cx.input(group, 0);
        let Place { buffer, layout } = cx.native(x)?;
        let step = ResampleStep { map: self.tables(layout, cx.extents(x))?, backward: false, level: cx.level(), name };
        cx.step(group, layout, Box::new(step), vec![buffer], 0)
    }

    /// Appends its gradient.
    pub(super) fn gradient(self, g: &mut Gradient<'_>) -> Result<()> {
        let input = four("an interpolation's gradient", &g.fact(g.input(0)).dims)?;
        let dx = g.push(ResampleGradient { map: self, input }, &[g.dy()])?;
        g.add(0, dx[0])
    }
}

/// The gradient at the input, from that at the output.
#[derive(Clone, Copy, Debug)]
struct ResampleGradient {
    map: Map,
    input: [usize; 4],
}

impl Operator for ResampleGradient {
    fn name(&self) -> &'static str {
        match self.map {
            Map::Resize(..) => "UpsampleGradient",
            Map::Pad(..) => "PadGradient",
        }
    }

    fn dims(&self, _: &[&[usize]]) -> Result<Vec<usize>> {
        Ok(self.input.to_vec())
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let Place { buffer, layout } = cx.native(cx.input(group, 0))?;
        let name = match self.map {
            Map::Resize(..) => "Upsample gradient",
            Map::Pad(..) => "Pad gradient",
        };
        let map = self.map.tables(layout, self.input)?;
        let step = ResampleStep { map, backward: true, level: cx.level(), name: name.into() };
        cx.step(group, layout, Box::new(step), vec![buffer], 0)
    }
}

/// A map with its tables; input and output have one layout.
struct ResampleStep {
    map: Resample,
    backward: bool,
    level: Level,
    name: String,
}

impl Step for ResampleStep {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        pass(self.level, |place| match self.backward {
            false => self.map.forward(place, x.get(0), y.into()),
            true => self.map.backward(place, x.get(0), y.into()),
        });
    }

    fn describe(&self) -> String {
        self.name.clone()
    }
}
