//! Each operation on burn and on swath, in turn: milliseconds forward, and forward and backward, as a Markdown table.
//!
//! `RAYON_NUM_THREADS=1 cargo run --release --example operations`, with glibc told to keep memory as in README.md. Tensors are random
//! and contiguous. The gradient that comes in is of ones, burn's sum of all outputs included on both sides. Before an operation is
//! timed, outputs and gradients of both are compared: where they differ there is an error in place of figures.

use std::time::{Duration, Instant};

use burn::tensor::ops::{
    AvgPoolOptions, ConvOptions, ConvTransposeOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions,
};
use burn::tensor::{Device, Distribution, Int, Tensor, module};

/// The images that all but convolutions take.
const IMAGES: [usize; 4] = [4, 64, 56, 56];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// An output and, of max pooling with indices, these.
type Output = (Tensor<4>, Option<Tensor<4, Int>>);

/// What is computed of an input and weights.
type Function = Box<dyn Fn(Tensor<4>, Tensor<4>) -> Result<Output>>;

/// An operation, by both.
struct Operation {
    name: &'static str,
    x: [usize; 4],
    w: [usize; 4],
    burn: Function,
    swath: Function,
}

/// How long an operation runs before it is timed.
const WARM_UP: Duration = Duration::from_millis(5);

impl Operation {
    fn new(
        name: &'static str,
        x: [usize; 4],
        w: [usize; 4],
        burn: impl Fn(Tensor<4>, Tensor<4>) -> Tensor<4> + 'static,
        swath: impl Fn(Tensor<4>, Tensor<4>) -> swath::Result<Tensor<4>> + 'static,
    ) -> Self {
        let burn = Box::new(move |x, w| Ok((burn(x, w), None)));
        let swath = Box::new(move |x, w| Ok((swath(x, w)?, None)));
        Self { name, x, w, burn, swath }
    }

    /// Of images alone.
    fn of_images(
        name: &'static str,
        burn: impl Fn(Tensor<4>) -> Tensor<4> + 'static,
        swath: impl Fn(Tensor<4>) -> swath::Result<Tensor<4>> + 'static,
    ) -> Self {
        Self::new(name, IMAGES, [1; 4], move |x, _| burn(x), move |x, _| swath(x))
    }

    /// Input and weights, and the same with gradients.
    fn inputs(&self) -> [[Tensor<4>; 2]; 2] {
        let fixed = [(self.x, 1.0), (self.w, 0.1)]
            .map(|(dims, deviation)| Tensor::random(dims, Distribution::Normal(0.0, deviation), &Device::default()));
        let tracked = fixed.each_ref().map(|t| Tensor::from_inner(t.clone()).require_grad());
        [fixed, tracked]
    }

    /// An error unless both have the same outputs, and the same gradients of a loss that weighs every output.
    fn check(&self) -> Result<()> {
        let [fixed, tracked] = self.inputs();
        let both = |[x, w]: &[Tensor<4>; 2]| -> Result<[Tensor<4>; 2]> {
            let (burn, burn_indices) = (self.burn)(x.clone(), w.clone())?;
            let (swath, swath_indices) = (self.swath)(x.clone(), w.clone())?;
            agree("output", &burn, &swath)?;
            let numbers = |t: Option<Tensor<4, Int>>| t.map(|t| t.into_data().iter::<i64>().collect::<Vec<_>>());
            if numbers(burn_indices) != numbers(swath_indices) {
                return Err("burn and swath differ in indices".into());
            }
            Ok([burn, swath])
        };
        both(&fixed)?;
        let [burn, swath] = both(&tracked)?;
        let weight = Tensor::random(burn.dims(), Distribution::Default, &burn.device());
        let [burn, swath] = [burn, swath].map(|y| (y * weight.clone()).sum().backward());
        for (what, t) in ["gradient of the input", "gradient of the weights"].into_iter().zip(&tracked) {
            match (t.grad(&burn), t.grad(&swath)) {
                (Some(burn), Some(swath)) => agree(what, &burn, &swath)?,
                // The weights of an operation without any.
                (None, None) => {}
                _ => return Err(format!("only one of burn and swath has a {what}").into()),
            }
        }
        Ok(())
    }

    /// The fastest of several rounds in turn, `[burn, swath]`.
    fn times(&self, gradient: bool) -> Result<[Duration; 2]> {
        let [fixed, tracked] = self.inputs();
        let once = |f: &Function| -> Result<Duration> {
            let [x, w] = if gradient { &tracked } else { &fixed }.clone();
            let start = Instant::now();
            if gradient {
                f(x, w)?.0.sum().backward();
            } else {
                f(x, w)?;
            }
            Ok(start.elapsed())
        };
        let mut best = [Duration::MAX; 2];
        let begun = Instant::now();
        for round in 0.. {
            for (best, f) in best.iter_mut().zip([&self.burn, &self.swath]) {
                // The other's memory has pushed this one's out, and this core may have slept while burn's threads worked.
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

/// An error unless two tensors are the same to 1e-3 of the largest value.
fn agree(what: &str, burn: &Tensor<4>, swath: &Tensor<4>) -> Result<()> {
    let (dims, other) = (burn.dims(), swath.dims());
    if dims != other {
        return Err(format!("the {what} is {dims:?} of burn, {other:?} of swath").into());
    }
    let burn: Vec<f32> = burn.to_data().try_to_vec()?;
    let swath: Vec<f32> = swath.to_data().try_to_vec()?;
    let largest = burn.iter().fold(0f32, |largest, v| largest.max(v.abs()));
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-3 * largest;
    match burn.iter().zip(&swath).find(|&pair| !close(pair)) {
        Some((a, b)) => Err(format!("the {what} has {a} of burn where swath has {b}, of values to {largest}").into()),
        None if largest == 0.0 => Err(format!("the {what} is all zeros").into()),
        None => Ok(()),
    }
}

/// A two-dimensional convolution of square images.
fn conv2d(name: &'static str, x: [usize; 4], w: [usize; 4], stride: usize, groups: usize) -> Operation {
    let padding = w[2] / 2;
    let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], groups);
    let same = options.clone();
    Operation::new(
        name,
        x,
        w,
        move |x, w| module::conv2d(x, w, None, options.clone()),
        move |x, w| swath_burn::conv2d(x, w, None, &same),
    )
}

fn convolutions() -> Vec<Operation> {
    let transposed = || ConvTransposeOptions::new([2, 2], [0, 0], [0, 0], [1, 1], 1);
    let options = transposed();
    vec![
        conv2d("conv2d 3x3, 64 to 64, 56x56", [1, 64, 56, 56], [64, 64, 3, 3], 1, 1),
        conv2d("conv2d 3x3, 64 to 128, stride 2", [1, 64, 56, 56], [128, 64, 3, 3], 2, 1),
        conv2d("conv2d 1x1, 256 to 64, 56x56", [1, 256, 56, 56], [64, 256, 1, 1], 1, 1),
        conv2d("conv2d 3x3, 128 in 32 groups, 56x56", [1, 128, 56, 56], [128, 4, 3, 3], 1, 32),
        conv2d("conv2d 3x3, 96 depthwise, 112x112", [1, 96, 112, 112], [96, 1, 3, 3], 1, 96),
        Operation::new(
            "conv_transpose2d 2x2, 64 to 32, stride 2, 28x28",
            [1, 64, 28, 28],
            [64, 32, 2, 2],
            move |x, w| module::conv_transpose2d(x, w, None, transposed()),
            move |x, w| swath_burn::conv_transpose2d(x, w, None, &options),
        ),
    ]
}

/// To twice the extents, corners not aligned.
fn interpolate(name: &'static str, mode: InterpolateMode) -> Operation {
    let options = InterpolateOptions::new(mode).with_output_size([112, 112]).with_align_corners(false);
    let same = options.clone();
    Operation::of_images(
        name,
        move |x| module::interpolate(x, options.clone()),
        move |x| swath_burn::interpolate(x, &same),
    )
}

fn others() -> Vec<Operation> {
    let max = || MaxPoolOptions::new([2, 2]);
    let average = || AvgPoolOptions::new([2, 2]);
    let with_indices = Operation {
        burn: Box::new(move |x, _| {
            let (y, indices) = module::max_pool2d_with_indices(x, max());
            Ok((y, Some(indices)))
        }),
        swath: Box::new(move |x, _| {
            let (y, indices) = swath_burn::max_pool2d_with_indices(x, &max())?;
            Ok((y, Some(indices)))
        }),
        name: "max_pool2d_with_indices 2x2, 4 of 64, 56x56",
        x: IMAGES,
        w: [1; 4],
    };
    vec![
        Operation::of_images(
            "max_pool2d 2x2, 4 of 64, 56x56",
            move |x| module::max_pool2d(x, max()),
            move |x| swath_burn::max_pool2d(x, &max()),
        ),
        with_indices,
        Operation::of_images(
            "avg_pool2d 2x2, 4 of 64, 56x56",
            move |x| module::avg_pool2d(x, average()),
            move |x| swath_burn::avg_pool2d(x, &average()),
        ),
        Operation::of_images(
            "adaptive_avg_pool2d to 7x7, 4 of 64, 56x56",
            |x| module::adaptive_avg_pool2d(x, [7, 7]),
            |x| swath_burn::adaptive_avg_pool2d(x, [7, 7]),
        ),
        interpolate("interpolate nearest to 112x112, 4 of 64", InterpolateMode::Nearest),
        interpolate("interpolate bilinear to 112x112, 4 of 64", InterpolateMode::Bilinear),
        interpolate("interpolate bicubic to 112x112, 4 of 64", InterpolateMode::Bicubic),
        // Scale and shift are the same numbers.
        Operation::new(
            "batch_norm in training, 4 of 64, 56x56",
            IMAGES,
            [1, 64, 1, 1],
            |x, w| {
                let w: Tensor<1> = w.reshape([64]);
                module::batch_norm_train(x, w.clone(), w, 1e-5).output
            },
            |x, w| {
                let w: Tensor<1> = w.reshape([64]);
                Ok(swath_burn::batch_norm_train(x, [w.clone(), w], 1e-5)?.0)
            },
        ),
    ]
}

fn main() -> Result<()> {
    println!("| operation | burn | swath | times as fast | burn with gradients | swath | times as fast |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let figures = |[burn, swath]: [Duration; 2]| {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        format!("{:.3} | {:.3} | {:.1}", ms(burn), ms(swath), ms(burn) / ms(swath))
    };
    for operation in convolutions().into_iter().chain(others()) {
        operation.check().map_err(|e| format!("{}: {e}", operation.name))?;
        let (forward, both) = (figures(operation.times(false)?), figures(operation.times(true)?));
        println!("| {} | {forward} | {both} |", operation.name);
    }
    Ok(())
}
