//! A scale and a shift of each channel: what a normalisation with known statistics amounts to.

use crate::buffer::floats;
use crate::error::Result;

/// `y = scale x + shift` per channel, in f64: whoever uses it rounds once.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    pub(super) scale: Vec<f64>,
    pub(super) shift: Vec<f64>,
}

impl Affine {
    /// The scale and the shift of each channel.
    pub(crate) fn parts(&self) -> [&[f64]; 2] {
        [&self.scale, &self.shift]
    }

    /// Weights and bias of a convolution that does what `weights`, `bias` and then this did. Element `i` of the weights
    /// belongs to output channel `i / taps` modulo the number of channels.
    pub(crate) fn fold(&self, weights: &[f32], bias: Option<&[f32]>, taps: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let mut folded = floats(weights.len())?;
        let taps_of = folded.chunks_mut(taps).zip(weights.chunks(taps)).zip(self.scale.iter().cycle());
        // With the channel's scale at hand the compiler makes vectors of it.
        taps_of.for_each(|((to, from), &scale)| {
            to.iter_mut().zip(from).for_each(|(to, &w)| *to = (f64::from(w) * scale) as f32);
        });
        let bias = self
            .shift
            .iter()
            .zip(&self.scale)
            .enumerate()
            .map(|(o, (shift, scale))| (f64::from(bias.map_or(0.0, |b| b[o])) * scale + shift) as f32);
        Ok((folded, bias.collect()))
    }
}
