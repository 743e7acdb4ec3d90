//! Against candle's own results and gradients.

use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::{Conv2dConfig, ConvTranspose2dConfig, Optimizer, SGD, VarBuilder, VarMap};

const CPU: Device = Device::Cpu;

fn random(dims: &[usize]) -> Result<Tensor> {
    Tensor::randn(0f32, 1.0, dims, &CPU)
}

fn close(what: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let scale = b.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?.max(1.0);
    let far = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    assert!(far < 2e-5 * scale, "{what}: {far} of {scale}");
    Ok(())
}

/// Results and gradients of two functions of variables, under a loss that weighs every output.
fn same(
    what: &str,
    vars: &[&Var],
    ours: &dyn Fn() -> Result<Tensor>,
    theirs: &dyn Fn() -> Result<Tensor>,
) -> Result<()> {
    let (a, b) = (ours()?, theirs()?);
    close(what, &a, &b)?;
    let weight = random(a.dims())?;
    let (da, db) = ((a * &weight)?.sum_all()?.backward()?, (b * &weight)?.sum_all()?.backward()?);
    for (i, var) in vars.iter().enumerate() {
        let [da, db] = [&da, &db].map(|d| d.get(var.as_tensor()).expect("it has a gradient"));
        close(&format!("{what}: gradient {i}"), da, db)?;
    }
    Ok(())
}

#[test]
fn convolutions() -> Result<()> {
    for (ic, oc, size, k, config) in [
        (3, 8, 12, 3, Conv2dConfig { padding: 1, ..Default::default() }),
        (16, 20, 9, 1, Conv2dConfig::default()),
        (5, 6, 11, 3, Conv2dConfig { stride: 2, padding: 1, ..Default::default() }),
        (4, 4, 13, 3, Conv2dConfig { dilation: 2, padding: 2, ..Default::default() }),
    ] {
        let [x, w, b] = [vec![2, ic, size, size], vec![oc, ic, k, k], vec![oc]].map(|d| Var::from_tensor(&random(&d)?));
        let (x, w, b) = (x?, w?, b?);
        same(&format!("{config:?}"), &[&x, &w, &b], &|| swath_candle::conv2d(&x, &w, Some(&b), &config), &|| {
            candle_nn::Conv2d::new(w.as_tensor().clone(), Some(b.as_tensor().clone()), config).forward(&x)
        })?;
        let theirs = || x.conv2d(&w, config.padding, config.stride, config.dilation, config.groups);
        same("without a bias", &[&x, &w], &|| swath_candle::conv2d(&x, &w, None, &config), &theirs)?;
    }
    // candle cuts groups into convolutions of their own.
    let (x, w) = (Var::from_tensor(&random(&[2, 8, 7, 7])?)?, Var::from_tensor(&random(&[8, 1, 3, 3])?)?);
    let config = Conv2dConfig { padding: 1, groups: 8, ..Default::default() };
    same("depthwise", &[&x, &w], &|| swath_candle::conv2d(&x, &w, None, &config), &|| x.conv2d(&w, 1, 1, 1, 8))
}

#[test]
fn strided_tensors_are_read_in_order() -> Result<()> {
    let (x, w) = (random(&[9, 8, 3, 2])?, random(&[3, 3, 3, 4])?);
    let (x, w) = (x.permute([3, 2, 1, 0])?, w.permute([3, 0, 1, 2])?.narrow(0, 1, 2)?);
    assert!(!x.is_contiguous());
    close("a view", &swath_candle::conv2d(&x, &w, None, &Default::default())?, &x.conv2d(&w, 0, 1, 1, 1)?)?;
    close("pooled", &swath_candle::max_pool2d(&x, 2, 2)?, &x.contiguous()?.max_pool2d(2)?)
}

#[test]
fn transposed_convolutions() -> Result<()> {
    for config in [
        ConvTranspose2dConfig { stride: 2, padding: 1, output_padding: 1, ..Default::default() },
        ConvTranspose2dConfig::default(),
    ] {
        let (x, w) = (Var::from_tensor(&random(&[2, 6, 7, 7])?)?, Var::from_tensor(&random(&[6, 4, 3, 3])?)?);
        let ConvTranspose2dConfig { padding, output_padding, stride, dilation } = config;
        same(&format!("{config:?}"), &[&x, &w], &|| swath_candle::conv_transpose2d(&x, &w, &config), &|| {
            x.conv_transpose2d(&w, padding, output_padding, stride, dilation)
        })?;
    }
    Ok(())
}

#[test]
fn pooling() -> Result<()> {
    // candle scales the gradient of a maximum by 1 over the window's elements: ours is held against the definition, 1 at the largest.
    let x = Var::from_tensor(&random(&[2, 5, 8, 6])?)?;
    close("max", &swath_candle::max_pool2d(&x, 2, 2)?, &x.max_pool2d(2)?)?;
    close("max, overlapping", &swath_candle::max_pool2d(&x, 3, 1)?, &x.max_pool2d_with_stride(3, 1)?)?;
    let d = swath_candle::max_pool2d(&x, 2, 2)?.sum_all()?.backward()?;
    let d = d.get(x.as_tensor()).expect("it has a gradient");
    let is_largest = x.as_tensor().eq(&x.max_pool2d(2)?.upsample_nearest2d(8, 6)?)?.to_dtype(DType::F32)?;
    close("gradient of the largest", d, &is_largest)?;
    same("average", &[&x], &|| swath_candle::avg_pool2d(&x, 2, 2), &|| x.avg_pool2d(2))
}

#[test]
fn a_layers_weights_are_packed_once_unless_they_are_trained() -> Result<()> {
    let (x, w) = (random(&[1, 3, 8, 8])?, random(&[4, 3, 3, 3])?);
    let fixed = swath_candle::Conv2d::new(w.clone(), None, Default::default());
    for x in [x.clone(), Tensor::cat(&[&x, &x], 0)?, x.clone()] {
        close("fixed", &fixed.forward(&x)?, &x.conv2d(&w, 0, 1, 1, 1)?)?;
    }
    let var = Var::from_tensor(&w)?;
    let trained = swath_candle::Conv2d::new(var.as_tensor().clone(), None, Default::default());
    trained.forward(&x)?;
    var.set(&(&w * 2.0)?)?;
    close("changed", &trained.forward(&x)?, &x.conv2d(&(w * 2.0)?, 0, 1, 1, 1)?)
}

#[test]
fn wrong_tensors_are_errors() -> Result<()> {
    let (x, w) = (random(&[1, 3, 8, 8])?, random(&[4, 2, 3, 3])?);
    let e = swath_candle::conv2d(&x, &w, None, &Default::default()).unwrap_err().to_string();
    assert!(e.contains("the input has 3 channels"), "{e}");
    let w = random(&[4, 3, 3, 3])?.to_dtype(DType::F64)?;
    assert!(swath_candle::conv2d(&x, &w, None, &Default::default()).unwrap_err().to_string().contains("f32"));
    Ok(())
}

/// The same network trains to the same losses on candle's convolutions and on ours.
#[test]
fn training_has_the_same_losses() -> Result<()> {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &CPU);
    let first = candle_nn::conv2d(1, 8, 3, Conv2dConfig { padding: 1, ..Default::default() }, vb.pp("first"))?;
    let second = candle_nn::conv2d(8, 16, 3, Default::default(), vb.pp("second"))?;
    let last = candle_nn::linear(16 * 5 * 5, 4, vb.pp("last"))?;
    let start: Vec<Tensor> = variables.all_vars().iter().map(|v| v.as_tensor().copy()).collect::<Result<_>>()?;
    let [ours1, ours2] = [first.clone(), second.clone()].map(swath_candle::Conv2d::from);
    let x = random(&[16, 1, 14, 14])?;
    let classes = Tensor::from_vec((0..16u32).map(|i| i % 4).collect::<Vec<_>>(), 16, &CPU)?;
    let train = |first: &dyn Module, second: &dyn Module, swath: bool| -> Result<Vec<f32>> {
        for (var, start) in variables.all_vars().iter().zip(&start) {
            var.set(start)?;
        }
        let mut sgd = SGD::new(variables.all_vars(), 0.02)?;
        let mut losses = Vec::new();
        for _ in 0..30 {
            let y = first.forward(&x)?.relu()?;
            let y = if swath { swath_candle::avg_pool2d(&y, 2, 2)? } else { y.avg_pool2d(2)? };
            let y = last.forward(&second.forward(&y)?.relu()?.flatten_from(1)?)?;
            let loss = candle_nn::loss::cross_entropy(&y, &classes)?;
            sgd.backward_step(&loss)?;
            losses.push(loss.to_scalar::<f32>()?);
        }
        Ok(losses)
    };
    let (theirs, ours) = (train(&first, &second, false)?, train(&ours1, &ours2, true)?);
    assert!(theirs[29] < theirs[0], "{theirs:?}");
    for (a, b) in theirs.iter().zip(&ours) {
        assert!((a - b).abs() < 1e-3, "{theirs:?} {ours:?}");
    }
    Ok(())
}
