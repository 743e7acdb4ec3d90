//! Batch normalisation in inference: `y = (x - mean) / sqrt(var + eps) * weight + bias`, with the running statistics.
//!
//! Per channel that is a scale and a shift ([`Affine`]). Behind a convolution that nothing else reads, both go into
//! its weights and bias when the graph is compiled, and nothing is left to run; elsewhere it is a step of its own.

use swath_kernels::act;
use swath_kernels::epilogue::Activation;
use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout, blocks};

use super::conv::four;
use super::forward::{Forward, Operands, Planes, clear_padding};
use super::{Operator, ParameterId, Parameters};
use crate::conv::Scratch;
use crate::error::{Error, Result};
use crate::par;

#[derive(Clone, Debug)]
pub(crate) struct BatchNormOp {
    /// Scale and shift that were trained; `None` is 1 and 0.
    pub(crate) affine: Option<[ParameterId; 2]>,
    pub(crate) mean: ParameterId,
    pub(crate) var: ParameterId,
    pub(crate) channels: usize,
    pub(crate) eps: f64,
}

impl Operator for BatchNormOp {
    fn name(&self) -> &'static str {
        "BatchNorm2d"
    }

    fn dims(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let [_, c, _, _] = four(self.name(), inputs[0])?;
        if c != self.channels {
            return Err(Error::Channels { what: self.name(), takes: self.channels, gets: c });
        }
        Ok(inputs[0].to_vec())
    }
}

impl BatchNormOp {
    /// The scale and shift that the parameters amount to.
    pub(crate) fn affine(&self, parameters: &Parameters) -> Affine {
        let value = |id: ParameterId, c: usize| f64::from(parameters[id].as_slice()[c]);
        let channel = |c: usize| {
            let [weight, bias] = self.affine.map_or([1.0, 0.0], |ids| ids.map(|id| value(id, c)));
            let scale = weight / (value(self.var, c) + self.eps).sqrt();
            (scale, bias - value(self.mean, c) * scale)
        };
        let (scale, shift) = (0..self.channels).map(channel).unzip();
        Affine { scale, shift }
    }
}

/// `y = scale x + shift` per channel, in f64: whoever uses it rounds once.
pub(crate) struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Affine {
    /// Weights and bias of a convolution that does what `weights`, `bias` and then this did. Element `i` of the weights
    /// belongs to output channel `i / taps` modulo the number of channels.
    pub(crate) fn fold(&self, weights: &[f32], bias: Option<&[f32]>, taps: usize) -> (Vec<f32>, Vec<f32>) {
        let scale = |o: usize, v: f32| f64::from(v) * self.scale[o];
        let taps_of = weights.chunks(taps).zip((0..self.scale.len()).cycle());
        let folded = taps_of.flat_map(|(w, o)| w.iter().map(move |&w| scale(o, w) as f32)).collect();
        let bias = (0..self.shift.len()).map(|o| (scale(o, bias.map_or(0.0, |b| b[o])) + self.shift[o]) as f32);
        (folded, bias.collect())
    }
}

/// A normalisation that no convolution could take along, and the activation behind it.
pub(crate) struct Normalize {
    scale: Vec<f32>,
    shift: Vec<f32>,
    pub(crate) activation: Activation,
    layout: Layout,
    dims: [usize; 4],
    level: Level,
}

impl Normalize {
    /// For images of extents `dims` in `layout`.
    pub(crate) fn new(affine: &Affine, activation: Activation, layout: Layout, dims: [usize; 4], level: Level) -> Self {
        // Channels that pad the last block are scaled by zero.
        let padded = |values: &[f64]| {
            let mut v: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            v.resize(blocks(v.len()) * BLOCK, 0.0);
            v
        };
        Self { scale: padded(&affine.scale), shift: padded(&affine.shift), activation, layout, dims, level }
    }

    /// Number of the first channel in row `r` of the planes.
    fn channel(&self, r: usize) -> usize {
        let [_, c, h, _] = self.dims;
        match self.layout {
            Layout::Nchw => r / h % c,
            Layout::Nhwc => 0,
            Layout::Blocked => r / h % blocks(c) * BLOCK,
        }
    }
}

impl Forward for Normalize {
    fn run(&self, x: &Operands<'_>, y: &mut [f32], in_place: bool, _: &mut Scratch) {
        let planes = Planes::new(self.layout, self.dims);
        let row = planes.w * planes.inner;
        let source = if in_place { &[] } else { x.get(0) };
        let work = if self.activation == Activation::Identity { 2 } else { 4 };
        par::for_each_piece(y, row, work, |rows, y| {
            for (r, y) in rows.zip(y.chunks_exact_mut(row)) {
                if !in_place {
                    y.copy_from_slice(&source[r * row..][..row]);
                }
                let c = self.channel(r);
                affine(y, &self.scale[c..c + planes.inner], &self.shift[c..c + planes.inner]);
            }
            act::apply_inplace(self.level, self.activation, y);
        });
        clear_padding(self.layout, self.dims, y);
    }

    fn in_place(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        match self.activation {
            Activation::Identity => "BatchNorm2d".into(),
            activation => format!("BatchNorm2d + {}", activation.name()),
        }
    }
}

/// `y = y * scale + shift`, pixel by pixel. It rounds twice at every level, so levels agree.
fn affine(y: &mut [f32], scale: &[f32], shift: &[f32]) {
    match (<&[f32; BLOCK]>::try_from(scale), <&[f32; BLOCK]>::try_from(shift)) {
        // Known at compile time, so that the compiler makes vectors of it.
        (Ok(scale), Ok(shift)) => {
            for px in y.as_chunks_mut::<BLOCK>().0 {
                (0..BLOCK).for_each(|k| px[k] = px[k] * scale[k] + shift[k]);
            }
        }
        _ if scale.len() == 1 => y.iter_mut().for_each(|y| *y = *y * scale[0] + shift[0]),
        _ => {
            for px in y.chunks_exact_mut(scale.len()) {
                px.iter_mut().zip(scale.iter().zip(shift)).for_each(|(y, (s, t))| *y = *y * s + t);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::forward::level;
    use super::super::forward::tests::{counting, run};
    use super::*;

    #[test]
    fn folded_weights_belong_to_their_channel_in_both_orders() {
        let affine = Affine { scale: vec![2.0, 10.0], shift: vec![0.5, -1.0] };
        // [oc = 2, taps = 3]
        let (w, b) = affine.fold(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], Some(&[1.0, 2.0]), 3);
        assert_eq!((w, b), (vec![2.0, 4.0, 6.0, 40.0, 50.0, 60.0], vec![2.5, 19.0]));
        // [ic = 2, oc = 2, taps = 1], no bias
        let (w, b) = affine.fold(&[1.0, 2.0, 3.0, 4.0], None, 1);
        assert_eq!((w, b), (vec![2.0, 20.0, 6.0, 40.0], vec![0.5, -1.0]));
    }

    #[test]
    fn every_layout_scales_the_right_channels() {
        for c in [1, 5, 16, 18] {
            let dims = [1, c, 1, 3];
            let channel = |k: usize| (k as f64 + 1.0, 0.5 * k as f64 + 1.0);
            let (scale, shift) = (0..c).map(channel).unzip();
            let affine = Affine { scale, shift };
            for layout in Layout::ALL {
                let step = Normalize::new(&affine, Activation::Sigmoid, layout, dims, level(None).unwrap());
                let got = run(&step, &[&counting(layout, c, 3)], layout.len(dims));
                let mut nchw = counting(Layout::Nchw, c, 3);
                for (i, v) in nchw.iter_mut().enumerate() {
                    let (scale, shift) = channel(i / 3);
                    *v = *v * scale as f32 + shift as f32;
                }
                act::apply_inplace(level(None).unwrap(), Activation::Sigmoid, &mut nchw);
                let mut expected = vec![0.0; got.len()];
                swath_kernels::layout::reorder(Layout::Nchw, &nchw, layout, &mut expected, dims);
                assert_eq!(got, expected, "{c} channels, {layout:?}");
            }
        }
    }
}
