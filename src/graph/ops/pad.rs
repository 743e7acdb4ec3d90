//! Padding that copies the image: reflected, replicated or circular; and zeros.

use swath_kernels::layout::{BLOCK, Layout};
use swath_kernels::shape::{Padding, checked_elements};

use super::four;
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::graph::lower::Place;
use crate::graph::step::{Operands, Planes, Step};
use crate::graph::{Group, Lower, Operator};

/// What lies beyond the image, with PyTorch's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PaddingMode {
    /// Zeros: `0 0 | a b c | 0 0`
    #[default]
    Zeros,
    /// The image mirrored at its outermost pixels: `c b | a b c | b a`; less padding than pixels.
    Reflect,
    /// The outermost pixels: `a a | a b c | c c`
    Replicate,
    /// The other side of the image: `b c | a b c | a b`; at most as much padding as pixels.
    Circular,
}

impl PaddingMode {
    fn name(self) -> &'static str {
        match self {
            PaddingMode::Zeros => "zeros",
            PaddingMode::Reflect => "reflect",
            PaddingMode::Replicate => "replicate",
            PaddingMode::Circular => "circular",
        }
    }

    /// The pixel that position `i - before` shows, of `size`.
    fn source(self, i: usize, before: usize, size: usize) -> Option<usize> {
        let inside = i.checked_sub(before).filter(|&p| p < size);
        match self {
            _ if inside.is_some() => inside,
            PaddingMode::Zeros => None,
            PaddingMode::Reflect if i < before => Some(before - i),
            PaddingMode::Reflect => Some(2 * (size - 1) - (i - before)),
            PaddingMode::Replicate => Some(if i < before { 0 } else { size - 1 }),
            PaddingMode::Circular if i < before => Some(size - (before - i)),
            PaddingMode::Circular => Some(i - before - size),
        }
    }
}

/// Padding of images.
#[derive(Clone, Copy, Debug)]
pub struct Pad {
    /// What lies beyond the image.
    pub mode: PaddingMode,
    /// Pixels on each side.
    pub pad: Padding,
}

impl Operator for Pad {
    fn name(&self) -> &'static str {
        "Pad"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let ([n, c, h, w], p) = (four("Pad", inputs[0])?, self.pad);
        for (axis, size, pad) in [("height", h, p.top.max(p.bottom)), ("width", w, p.left.max(p.right))] {
            let limit = match self.mode {
                PaddingMode::Zeros => continue,
                PaddingMode::Reflect => size.saturating_sub(1),
                PaddingMode::Replicate => usize::MAX * size.min(1),
                PaddingMode::Circular => size,
            };
            if pad > limit {
                let rule = format!("mode {} allows at most {limit} along a {axis} of {size}", self.mode.name());
                return Err(Error::Setting { what: "the padding", value: pad.to_string(), rule });
            }
        }
        let grown = |v: usize, a: usize, b: usize| v.saturating_add(a).saturating_add(b);
        let (oh, ow) = (grown(h, p.top, p.bottom), grown(w, p.left, p.right));
        checked_elements("padded input", &[n, c.saturating_add(BLOCK - 1), oh, ow])?;
        Ok(vec![n, c, oh, ow])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let x = cx.input(group, 0);
        let (Place { buffer, layout }, dims) = (cx.native(x)?, cx.extents(x));
        let step = (*self).forward(dims, layout);
        cx.step(group, layout, Box::new(step), vec![buffer], 0)
    }
}

/// A padding for given extents; input and output have one layout.
struct PadForward {
    op: Pad,
    from: Planes,
    to: Planes,
    /// Source column of every output column.
    columns: Vec<Option<usize>>,
}

impl Pad {
    fn forward(self, input: [usize; 4], layout: Layout) -> PadForward {
        let [n, c, h, w] = input;
        let p = self.pad;
        let (oh, ow) = (h + p.top + p.bottom, w + p.left + p.right);
        let columns = (0..ow).map(|i| self.mode.source(i, p.left, w)).collect();
        PadForward { op: self, from: Planes::new(layout, input), to: Planes::new(layout, [n, c, oh, ow]), columns }
    }
}

impl Step for PadForward {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], _: bool, _: &mut Scratch) {
        let (x, from, to) = (x.get(0), self.from, self.to);
        let (from_row, to_row) = (from.w * from.inner, to.w * to.inner);
        for (i, y) in y.chunks_exact_mut(to_row.max(1)).enumerate() {
            let (plane, r) = (i / to.h, i % to.h);
            let Some(r) = self.op.mode.source(r, self.op.pad.top, from.h) else {
                y.fill(0.0);
                continue;
            };
            let row = &x[(plane * from.h + r) * from_row..][..from_row];
            for (y, column) in y.chunks_exact_mut(to.inner).zip(&self.columns) {
                match column {
                    Some(p) => y.copy_from_slice(&row[p * from.inner..][..from.inner]),
                    None => y.fill(0.0),
                }
            }
        }
    }

    fn describe(&self) -> String {
        let p = self.op.pad;
        format!("Pad {} {},{},{},{}", self.op.mode.name(), p.top, p.left, p.bottom, p.right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_show_the_right_pixels() {
        let line =
            |mode: PaddingMode| -> Vec<i32> { (0..8).map(|i| mode.source(i, 2, 4).map_or(-1, |p| p as i32)).collect() };
        assert_eq!(line(PaddingMode::Zeros), [-1, -1, 0, 1, 2, 3, -1, -1]);
        assert_eq!(line(PaddingMode::Reflect), [2, 1, 0, 1, 2, 3, 2, 1]);
        assert_eq!(line(PaddingMode::Replicate), [0, 0, 0, 1, 2, 3, 3, 3]);
        assert_eq!(line(PaddingMode::Circular), [2, 3, 0, 1, 2, 3, 0, 1]);
    }

    #[test]
    fn too_much_padding_is_refused() {
        let text = |mode, pad: usize| match (Pad { mode, pad: pad.into() }).dims(&[&[1, 2, 4, 4]]) {
            Ok(dims) => format!("{dims:?}"),
            Err(e) => e.to_string(),
        };
        assert_eq!(text(PaddingMode::Reflect, 3), "[1, 2, 10, 10]");
        assert_eq!(
            text(PaddingMode::Reflect, 4),
            "the padding is 4, but mode reflect allows at most 3 along a height of 4"
        );
        assert_eq!(text(PaddingMode::Circular, 4), "[1, 2, 12, 12]");
        assert!(text(PaddingMode::Circular, 5).contains("at most 4"));
        assert_eq!(text(PaddingMode::Replicate, 9), "[1, 2, 22, 22]");
        assert!(text(PaddingMode::Zeros, usize::MAX).contains("more than"));
    }
}
