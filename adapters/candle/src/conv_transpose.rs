//! Transposed convolution: the data gradient of a convolution, whose own gradients are that convolution and its weight gradient.

use candle_core::{CpuStorage, CustomOp2, Error, Layout, Result, Shape, Tensor};
use candle_nn::ConvTranspose2dConfig;
use swath::{ConvShape, ConvTransposeShape};

use crate::conv::{AtInput, AtWeights, Conv};

/// As [`Tensor::conv_transpose2d`]: `x` `[n, ic, h, w]`, weights `[ic, oc, kh, kw]`.
pub fn conv_transpose2d(x: &Tensor, w: &Tensor, config: &ConvTranspose2dConfig) -> Result<Tensor> {
    let (n, ic, ih, iw) = x.dims4()?;
    let (wic, oc, kh, kw) = w.dims4()?;
    let shape = ConvTransposeShape::builder([n, ic, ih, iw], [wic, oc, kh, kw])
        .padding(config.padding)
        .output_padding(config.output_padding)
        .stride(config.stride)
        .dilation(config.dilation)
        .build()
        .map_err(Error::wrap)?;
    x.apply_op2(w, ConvTranspose(*shape.convolution()))
}

/// The transposed convolution of a convolution.
struct ConvTranspose(ConvShape);

impl CustomOp2 for ConvTranspose {
    fn name(&self) -> &'static str {
        "swath-conv_transpose2d"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        AtInput(self.0).cpu_fwd(x, xl, w, wl)
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let conv = Conv { shape: self.0, packs: None };
        let dx = x.track_op().then(|| dy.apply_op2_no_bwd(w, &conv)).transpose()?;
        // Input and gradient change places.
        let dw = w.track_op().then(|| dy.apply_op2_no_bwd(x, &AtWeights(self.0))).transpose()?;
        Ok((dx, dw))
    }
}
