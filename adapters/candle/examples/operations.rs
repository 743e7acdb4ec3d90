//! Each operation on candle and on swath, in turn: milliseconds forward, and forward and backward, as a Markdown table.
//!
//! `RAYON_NUM_THREADS=1 cargo run --release --example operations [-- PART-OF-A-NAME]`. Tensors are random and contiguous. The gradient that comes in is of
//! ones, candle's sum of all outputs included on both sides.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Module, ModuleT, Result, Tensor, Var};
use candle_nn::{Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig, VarBuilder, VarMap};

/// What is computed of an input and weights.
type Function = Box<dyn Fn(&Tensor, &Tensor) -> Result<Tensor>>;

/// An operation, by both.
struct Operation {
    name: &'static str,
    x: Vec<usize>,
    w: Vec<usize>,
    candle: Function,
    swath: Function,
    /// Whether candle has its gradient.
    gradient: bool,
}

/// How long an operation runs before it is timed.
const WARM_UP: Duration = Duration::from_millis(5);

impl Operation {
    fn new(
        name: &'static str,
        x: impl Into<Vec<usize>>,
        w: impl Into<Vec<usize>>,
        candle: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + 'static,
        swath: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + 'static,
    ) -> Self {
        let (candle, swath) = (Box::new(candle), Box::new(swath));
        Self { name, x: x.into(), w: w.into(), candle, swath, gradient: true }
    }

    fn forward_only(self) -> Self {
        Self { gradient: false, ..self }
    }

    /// # Errors
    /// If the outputs differ by more than a thousandth of the largest.
    fn agree(&self, x: &Tensor, w: &Tensor) -> Result<()> {
        let (by_candle, by_swath) = ((self.candle)(x, w)?, (self.swath)(x, w)?);
        let largest = |t: &Tensor| t.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>();
        let (error, scale) = (largest(&(&by_candle - &by_swath)?)?, largest(&by_candle)?);
        if !(error <= 1e-3 * scale) {
            candle_core::bail!("{}: outputs differ by {error}, of {scale}", self.name);
        }
        Ok(())
    }

    /// The fastest of several rounds in turn, `[candle, swath]`.
    fn times(&self, gradient: bool) -> Result<[Duration; 2]> {
        let x = Var::randn(0f32, 1.0, self.x.clone(), &Device::Cpu)?;
        let w = Var::randn(0f32, 0.1, self.w.clone(), &Device::Cpu)?;
        let (fixed_x, fixed_w) = (x.as_detached_tensor(), w.as_detached_tensor());
        self.agree(&fixed_x, &fixed_w)?;
        let once = |f: &Function| -> Result<Duration> {
            let start = Instant::now();
            if gradient {
                f(&x, &w)?.sum_all()?.backward()?;
            } else {
                f(&fixed_x, &fixed_w)?;
            }
            Ok(start.elapsed())
        };
        let mut best = [Duration::MAX; 2];
        let begun = Instant::now();
        for round in 0.. {
            for (best, f) in best.iter_mut().zip([&self.candle, &self.swath]) {
                // The other's memory has pushed this one's out, and this core may have slept while candle's threads worked.
                let woken = Instant::now();
                while woken.elapsed() < WARM_UP {
                    once(f)?;
                }
                *best = once(f)?.min(*best);
            }
            if round >= 3 && begun.elapsed() > Duration::from_secs(1) {
                break;
            }
        }
        Ok(best)
    }
}

/// A two-dimensional convolution of square images.
fn conv2d(name: &'static str, x: [usize; 4], w: [usize; 4], config: Conv2dConfig) -> Operation {
    let Conv2dConfig { padding, stride, dilation, groups, .. } = config;
    Operation::new(
        name,
        x,
        w,
        move |x, w| x.conv2d(w, padding, stride, dilation, groups),
        move |x, w| swath_candle::conv2d(x, w, None, &config),
    )
}

fn convolutions() -> Vec<Operation> {
    let padded = Conv2dConfig { padding: 1, ..Default::default() };
    let (one, transposed1) =
        (Conv1dConfig { padding: 1, ..Default::default() }, ConvTranspose1dConfig { stride: 2, ..Default::default() });
    let transposed2 = ConvTranspose2dConfig { stride: 2, ..Default::default() };
    vec![
        conv2d("conv2d 3x3, 64 to 64, 56x56", [1, 64, 56, 56], [64, 64, 3, 3], padded),
        conv2d(
            "conv2d 3x3, 64 to 128, stride 2",
            [1, 64, 56, 56],
            [128, 64, 3, 3],
            Conv2dConfig { stride: 2, ..padded },
        ),
        conv2d("conv2d 1x1, 256 to 64, 56x56", [1, 256, 56, 56], [64, 256, 1, 1], Default::default()),
        conv2d(
            "conv2d 3x3, 128 in 32 groups, 56x56",
            [1, 128, 56, 56],
            [128, 4, 3, 3],
            Conv2dConfig { groups: 32, ..padded },
        ),
        conv2d(
            "conv2d 3x3, 96 depthwise, 112x112",
            [1, 96, 112, 112],
            [96, 1, 3, 3],
            Conv2dConfig { groups: 96, ..padded },
        ),
        Operation::new(
            "conv1d 3, 64 to 64, 4 of 1024",
            [4, 64, 1024],
            [64, 64, 3],
            |x, w| x.conv1d(w, 1, 1, 1, 1),
            move |x, w| swath_candle::conv1d(x, w, None, &one),
        ),
        Operation::new(
            "conv_transpose2d 2x2, 64 to 32, stride 2, 28x28",
            [1, 64, 28, 28],
            [64, 32, 2, 2],
            |x, w| x.conv_transpose2d(w, 0, 0, 2, 1),
            move |x, w| swath_candle::conv_transpose2d(x, w, None, &transposed2),
        ),
        Operation::new(
            "conv_transpose1d 4, 64 to 32, stride 2, 2048",
            // candle's of several, without padding, is another sum (0.11.1).
            [1, 64, 2048],
            [64, 32, 4],
            |x, w| x.conv_transpose1d(w, 0, 0, 2, 1, 1),
            move |x, w| swath_candle::conv_transpose1d(x, w, None, &transposed1),
        )
        .forward_only(),
        Operation::new(
            "linear 1024 to 1024, batch 64",
            [64, 1024],
            [1024, 1024],
            |x, w| candle_nn::Linear::new(w.clone(), None).forward(x),
            |x, w| swath_candle::linear(x, w, None),
        ),
    ]
}

fn others() -> Result<Vec<Operation>> {
    let image = [4, 64, 56, 56];
    let variables = VarMap::new();
    let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let by_candle = candle_nn::batch_norm(64, 1e-5, builder.pp("candle"))?;
    let by_swath = swath_candle::batch_norm(64, 1e-5, builder.pp("swath"))?;
    Ok(vec![
        Operation::new(
            "max_pool2d 2x2, 4 of 64, 56x56",
            image,
            [1],
            |x, _| x.max_pool2d(2),
            |x, _| swath_candle::max_pool2d(x, 2, 2),
        ),
        Operation::new(
            "avg_pool2d 2x2, 4 of 64, 56x56",
            image,
            [1],
            |x, _| x.avg_pool2d(2),
            |x, _| swath_candle::avg_pool2d(x, 2, 2),
        ),
        Operation::new(
            "upsample_nearest2d to 112x112, 4 of 64",
            image,
            [1],
            |x, _| x.upsample_nearest2d(112, 112),
            |x, _| swath_candle::upsample_nearest2d(x, 112, 112),
        ),
        Operation::new(
            "upsample_nearest1d to 2048, 4 of 64",
            [4, 64, 1024],
            [1],
            |x, _| x.upsample_nearest1d(2048),
            |x, _| swath_candle::upsample_nearest1d(x, 2048),
        )
        .forward_only(),
        Operation::new(
            "upsample_bilinear2d to 112x112, 4 of 64",
            image,
            [1],
            |x, _| x.upsample_bilinear2d(112, 112, false),
            |x, _| swath_candle::upsample_bilinear2d(x, 112, 112, false),
        )
        .forward_only(),
        Operation::new(
            "batch_norm in training, 4 of 64, 56x56",
            image,
            [1],
            move |x, _| by_candle.forward_t(x, true),
            move |x, _| by_swath.forward_t(x, true),
        ),
    ])
}

fn main() -> Result<()> {
    println!("| operation | candle | swath | times as fast | candle with gradients | swath | times as fast |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let figures = |[candle, swath]: [Duration; 2]| {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        format!("{:.3} | {:.3} | {:.1}", ms(candle), ms(swath), ms(candle) / ms(swath))
    };
    let wanted = std::env::args().nth(1).unwrap_or_default();
    for operation in convolutions().into_iter().chain(others()?).filter(|o| o.name.contains(&wanted)) {
        let forward = figures(operation.times(false)?);
        let both = if operation.gradient { figures(operation.times(true)?) } else { "- | - | -".into() };
        println!("| {} | {forward} | {both} |", operation.name);
    }
    Ok(())
}
