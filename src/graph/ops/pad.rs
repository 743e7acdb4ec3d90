//! Padding: a constant, or the image reflected, replicated or circular.

use swath_kernels::layout::BLOCK;
use swath_kernels::resample::PadMode;
use swath_kernels::shape::{Padding, checked_elements};

use super::four;
use super::resample::Map;
use crate::error::{Error, Result};
use crate::graph::{Gradient, Group, Lower, Operator};

/// Padding of images: `[n, c, h, w]` to `[n, c, top + h + bottom, left + w + right]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pad {
    /// What lies beyond the image.
    pub mode: PadMode,
    /// Pixels on each side.
    pub pad: Padding,
}

fn name(mode: PadMode) -> &'static str {
    match mode {
        PadMode::Constant(_) => "constant",
        PadMode::Reflect => "reflect",
        PadMode::Replicate => "replicate",
        PadMode::Circular => "circular",
    }
}

impl Operator for Pad {
    fn name(&self) -> &'static str {
        "Pad"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let ([n, c, h, w], p) = (four("Pad", inputs[0])?, self.pad);
        for (axis, size, pad) in [("height", h, p.top.max(p.bottom)), ("width", w, p.left.max(p.right))] {
            let limit = match self.mode {
                PadMode::Constant(_) | PadMode::Replicate => usize::MAX * size.min(1),
                PadMode::Reflect => size.saturating_sub(1),
                PadMode::Circular => size,
            };
            if pad > limit {
                let rule = format!("mode {} allows at most {limit} along a {axis} of {size}", name(self.mode));
                return Err(Error::Setting { what: "the padding", value: pad.to_string(), rule });
            }
        }
        let grown = |v: usize, a: usize, b: usize| v.saturating_add(a).saturating_add(b);
        let (oh, ow) = (grown(h, p.top, p.bottom), grown(w, p.left, p.right));
        checked_elements("padded input", &[n, c.saturating_add(BLOCK - 1), oh, ow])?;
        Ok(vec![n, c, oh, ow])
    }

    fn lower(&self, group: &Group, cx: &mut Lower<'_>) -> Result<()> {
        let p = self.pad;
        let what = format!("Pad {} {},{},{},{}", name(self.mode), p.top, p.left, p.bottom, p.right);
        Map::Pad(p, self.mode).lower(group, cx, what)
    }

    fn gradient(&self, g: &mut Gradient<'_>) -> Result<()> {
        Map::Pad(self.pad, self.mode).gradient(g)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_padding_is_refused() {
        let text = |mode, pad: usize| match (Pad { mode, pad: pad.into() }).dims(&[&[1, 2, 4, 4]]) {
            Ok(dims) => format!("{dims:?}"),
            Err(e) => e.to_string(),
        };
        assert_eq!(text(PadMode::Reflect, 3), "[1, 2, 10, 10]");
        assert_eq!(
            text(PadMode::Reflect, 4),
            "the padding is 4, but mode reflect allows at most 3 along a height of 4"
        );
        assert_eq!(text(PadMode::Circular, 4), "[1, 2, 12, 12]");
        assert!(text(PadMode::Circular, 5).contains("at most 4"));
        assert_eq!(text(PadMode::Replicate, 9), "[1, 2, 22, 22]");
        assert!(text(PadMode::Constant(0.0), usize::MAX).contains("more than"));
    }
}
