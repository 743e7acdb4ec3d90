//! Against candle's own results and gradients, and against differences where candle has no gradient.

use candle_core::{Device, Module, ModuleT, Result, Tensor, Var};
use candle_nn::{
    BatchNormConfig, Conv1dConfig, Conv2dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig, Optimizer, ParamsAdamW,
    SGD, VarBuilder, VarMap,
};

const CPU: Device = Device::Cpu;

/// A plane of numbers in -1 to 1, the same in every run.
fn random(dims: &[usize]) -> Result<Tensor> {
    let mut state = dims.iter().fold(12345u32, |s, &d| s.wrapping_mul(31).wrapping_add(d as u32));
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    Tensor::from_vec((0..dims.iter().product()).map(|_| next()).collect::<Vec<_>>(), dims, &CPU)
}

fn var(dims: &[usize]) -> Result<Var> {
    Var::from_tensor(&random(dims)?)
}

fn close(what: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let scale = b.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?.max(1.0);
    let far = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    assert!(far < 2e-5 * scale, "{what}: {far} of {scale}");
    Ok(())
}

type Made<'a> = &'a dyn Fn() -> Result<Tensor>;

/// Results and gradients of two functions of variables, under a loss that weighs every output.
fn same(what: &str, vars: &[&Var], ours: Made, theirs: Made) -> Result<()> {
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

/// The gradient of a linear function of a variable is the difference that a step makes.
fn linear(what: &str, x: &Var, ours: Made) -> Result<()> {
    let y = ours()?;
    let weight = random(y.dims())?;
    let d = (&y * &weight)?.sum_all()?.backward()?;
    let d = d.get(x.as_tensor()).expect("it has a gradient").clone();
    let (before, step) = (x.as_tensor().copy()?, random(x.dims())?.affine(0.7, 0.1)?);
    x.set(&(&before + &step)?)?;
    let moved = ((ours()? - y)? * &weight)?.sum_all()?;
    x.set(&before)?;
    close(what, &(d * step)?.sum_all()?, &moved)
}

#[test]
fn convolutions() -> Result<()> {
    for (ic, oc, size, k, config) in [
        (3, 8, 12, 3, Conv2dConfig { padding: 1, ..Default::default() }),
        (16, 20, 9, 1, Conv2dConfig::default()),
        (5, 6, 11, 3, Conv2dConfig { stride: 2, padding: 1, ..Default::default() }),
        (4, 4, 13, 3, Conv2dConfig { dilation: 2, padding: 2, ..Default::default() }),
        (8, 8, 7, 3, Conv2dConfig { padding: 1, groups: 8, ..Default::default() }),
        (6, 9, 8, 3, Conv2dConfig { padding: 1, groups: 3, ..Default::default() }),
    ] {
        let (x, w, b) = (var(&[2, ic, size, size])?, var(&[oc, ic / config.groups, k, k])?, var(&[oc])?);
        same(&format!("{config:?}"), &[&x, &w, &b], &|| swath_candle::conv2d(&x, &w, Some(&b), &config), &|| {
            candle_nn::Conv2d::new(w.as_tensor().clone(), Some(b.as_tensor().clone()), config).forward(&x)
        })?;
        let theirs = || x.conv2d(&w, config.padding, config.stride, config.dilation, config.groups);
        same("without a bias", &[&x, &w], &|| swath_candle::conv2d(&x, &w, None, &config), &theirs)?;
    }
    Ok(())
}

#[test]
fn convolutions_of_sequences() -> Result<()> {
    for config in [
        Conv1dConfig { padding: 2, ..Default::default() },
        Conv1dConfig { stride: 2, padding: 1, ..Default::default() },
        Conv1dConfig { dilation: 3, groups: 2, ..Default::default() },
    ] {
        let (x, w, b) = (var(&[3, 4, 20])?, var(&[6, 4 / config.groups, 3])?, var(&[6])?);
        let ours = || swath_candle::conv1d(&x, &w, Some(&b), &config);
        // candle 0.11.1 multiplies with the kernel before it is made contiguous, so that its own gradient at the weights is wrong.
        linear("gradient at w", &w, &ours)?;
        same(&format!("{config:?}"), &[&x, &b], &ours, &|| {
            candle_nn::Conv1d::new(w.as_tensor().clone(), Some(b.as_tensor().clone()), config).forward(&x)
        })?;
    }
    Ok(())
}

#[test]
fn transposed_convolutions() -> Result<()> {
    for config in [
        ConvTranspose2dConfig { stride: 2, padding: 1, output_padding: 1, ..Default::default() },
        ConvTranspose2dConfig { dilation: 2, padding: 1, ..Default::default() },
        ConvTranspose2dConfig::default(),
    ] {
        let (x, w, b) = (var(&[2, 6, 7, 7])?, var(&[6, 4, 3, 3])?, var(&[4])?);
        let ours = || swath_candle::conv_transpose2d(&x, &w, Some(&b), &config);
        same(&format!("{config:?}"), &[&x, &w, &b], &ours, &|| {
            candle_nn::ConvTranspose2d::new(w.as_tensor().clone(), Some(b.as_tensor().clone()), config).forward(&x)
        })?;
        let ConvTranspose2dConfig { padding, output_padding, stride, dilation } = config;
        same("without a bias", &[&x, &w], &|| swath_candle::conv_transpose2d(&x, &w, None, &config), &|| {
            x.conv_transpose2d(&w, padding, output_padding, stride, dilation)
        })?;
    }
    Ok(())
}

/// candle has no gradient of these.
#[test]
fn transposed_convolutions_of_sequences() -> Result<()> {
    let config = ConvTranspose1dConfig { stride: 2, padding: 1, output_padding: 1, groups: 2, ..Default::default() };
    let (x, w, b) = (var(&[2, 6, 9])?, var(&[6, 4, 3])?, var(&[8])?);
    let ours = || swath_candle::conv_transpose1d(&x, &w, Some(&b), &config);
    let theirs = candle_nn::ConvTranspose1d::new(w.as_tensor().clone(), Some(b.as_tensor().clone()), config);
    close("1-d", &ours()?, &theirs.forward(&x)?)?;
    linear("gradient at x", &x, &ours)?;
    linear("gradient at w", &w, &ours)?;
    linear("gradient at b", &b, &ours)
}

#[test]
fn products() -> Result<()> {
    for (dims, out) in [(vec![7, 40], 19), (vec![3, 5, 24], 33), (vec![2, 3], 4)] {
        let (x, w, b) = (var(&dims)?, var(&[out, *dims.last().expect("an axis")])?, var(&[out])?);
        let theirs = candle_nn::Linear::new(w.as_tensor().clone(), Some(b.as_tensor().clone()));
        let ours = swath_candle::Linear::from(theirs.clone());
        same("linear", &[&x, &w, &b], &|| ours.forward(&x), &|| theirs.forward(&x))?;
        let turned = || x.transpose(0, dims.len() - 2)?.contiguous();
        same(
            "of a view",
            &[&x, &w],
            &|| swath_candle::linear(&turned()?.transpose(0, dims.len() - 2)?, &w, None),
            &|| candle_nn::Linear::new(w.as_tensor().clone(), None).forward(&x),
        )?;
    }
    Ok(())
}

#[test]
fn strided_tensors() -> Result<()> {
    // Axes reversed; channels last; a part of the channels; a part of the batch; repeated without a copy.
    let wide = var(&[9, 8, 3, 2])?;
    let last = var(&[2, 8, 9, 3])?;
    let more = var(&[2, 5, 8, 9])?;
    let one = var(&[1, 3, 8, 9])?;
    let w = var(&[3, 3, 3, 4])?;
    let views: [(&str, &Var, Made); 5] = [
        ("axes reversed", &wide, &|| wide.permute([3, 2, 1, 0])),
        ("channels last", &last, &|| last.permute([0, 3, 1, 2])),
        ("a part of the channels", &more, &|| more.narrow(1, 1, 3)),
        ("a part of the batch", &more, &|| more.narrow(0, 1, 1)?.narrow(1, 0, 3)),
        ("repeated", &one, &|| one.broadcast_as((2, 3, 8, 9))),
    ];
    for (what, var, view) in views {
        let kernel = || w.permute([3, 0, 1, 2])?.narrow(0, 1, 2);
        same(what, &[var, &w], &|| swath_candle::conv2d(&view()?, &kernel()?, None, &Default::default()), &|| {
            view()?.conv2d(&kernel()?, 0, 1, 1, 1)
        })?;
        let pooled = || view()?.contiguous()?.avg_pool2d(2);
        same(what, &[var], &|| swath_candle::avg_pool2d(&view()?, 2, 2), &|| {
            view()?.contiguous()?.narrow(2, 0, 8)?.narrow(3, 0, 8)?.avg_pool2d(2)
        })?;
        close(what, &swath_candle::avg_pool2d(&view()?, 2, 2)?, &pooled()?)?;
        // The gradient that comes back lies channels last.
        same(
            "channels last behind",
            &[var, &w],
            &|| swath_candle::conv2d(&view()?, &kernel()?, None, &Default::default())?.permute([0, 2, 3, 1]),
            &|| view()?.conv2d(&kernel()?, 0, 1, 1, 1)?.permute([0, 2, 3, 1]),
        )?;
    }
    Ok(())
}

#[test]
fn pooling() -> Result<()> {
    let x = var(&[2, 5, 8, 6])?;
    let ours = |k, s| swath_candle::max_pool2d(&x, k, s);
    close("max", &ours(2, 2)?, &x.max_pool2d(2)?)?;
    close("max, overlapping", &ours(3, 1)?, &x.max_pool2d_with_stride(3, 1)?)?;
    // The gradient of a maximum is 1 at the largest.
    let d = ours(2, 2)?.sum_all()?.backward()?;
    let d = d.get(x.as_tensor()).expect("it has a gradient");
    let is_largest =
        x.as_tensor().eq(&x.max_pool2d(2)?.upsample_nearest2d(8, 6)?)?.to_dtype(candle_core::DType::F32)?;
    close("gradient of the largest", d, &is_largest)?;
    same("average", &[&x], &|| swath_candle::avg_pool2d(&x, 2, 2), &|| x.avg_pool2d(2))?;
    same("average of oblongs", &[&x], &|| swath_candle::avg_pool2d(&x, (4, 2), (4, 2)), &|| x.avg_pool2d((4, 2)))?;
    linear("average, overlapping", &x, &|| swath_candle::avg_pool2d(&x, 3, 1))
}

#[test]
fn pooling_as_candle_has_its_gradient() -> Result<()> {
    // Rounded, so that windows have several largest elements.
    let x = Var::from_tensor(&(random(&[2, 5, 8, 6])? * 2.0)?.round()?)?;
    same("max", &[&x], &|| swath_candle::max_pool2d_as_candle(&x, 2, 2), &|| x.max_pool2d(2))?;
    let oblong = || swath_candle::max_pool2d_as_candle(&x, (4, 2), (4, 2));
    same("oblong", &[&x], &oblong, &|| x.max_pool2d((4, 2)))?;
    let overlapping = swath_candle::max_pool2d_as_candle(&x, 3, 1)?.sum_all()?;
    assert!(overlapping.backward().unwrap_err().to_string().contains("3x3"));
    Ok(())
}

#[test]
fn upsampling() -> Result<()> {
    let x = var(&[2, 3, 4, 5])?;
    let twice = || swath_candle::upsample_nearest2d(&x, 8, 10);
    same("twice", &[&x], &twice, &|| x.upsample_nearest2d(8, 10))?;
    for (h, w) in [(7, 9), (4, 5), (3, 11)] {
        let ours = || swath_candle::upsample_nearest2d(&x, h, w);
        close("nearest", &ours()?, &x.upsample_nearest2d(h, w)?)?;
        linear("gradient", &x, &ours)?;
        for corners in [false, true] {
            let ours = || swath_candle::upsample_bilinear2d(&x, h, w, corners);
            close("bilinear", &ours()?, &x.upsample_bilinear2d(h, w, corners)?)?;
            linear("gradient", &x, &ours)?;
        }
    }
    let x = var(&[2, 3, 5])?;
    same("1-d", &[&x], &|| swath_candle::upsample_nearest1d(&x, 15), &|| x.upsample_nearest1d(15))
}

/// Both of the same variables, from a few steps of training on.
#[test]
fn batch_normalisation() -> Result<()> {
    for dims in [vec![4, 6, 5, 3], vec![7, 6], vec![3, 6, 8]] {
        for affine in [true, false] {
            let config = BatchNormConfig { eps: 1e-3, affine, momentum: 0.2, ..Default::default() };
            let (map, theirs_map) = (VarMap::new(), VarMap::new());
            let builder = |map: &VarMap| VarBuilder::from_varmap(map, candle_core::DType::F32, &CPU);
            let ours = swath_candle::batch_norm(6, config, builder(&map))?;
            let theirs = candle_nn::batch_norm(6, config, builder(&theirs_map))?;
            assert_eq!(map.all_vars().len(), theirs_map.all_vars().len());
            if affine {
                // candle's layer and ours on the same weight and bias.
                let names = ["weight", "bias"];
                for (map, name) in [&map, &theirs_map].into_iter().flat_map(|m| names.map(|n| (m, n))) {
                    map.data().lock().unwrap()[name].set(&random(&[6, name.len()])?.narrow(1, 0, 1)?.squeeze(1)?)?;
                }
            }
            let x = Var::from_tensor(&random(&dims)?.affine(3.0, 2.0)?)?;
            for train in [true, true, false] {
                let (a, b) = (ours.forward_t(&x, train)?, theirs.forward_t(&x, train)?);
                close(&format!("{dims:?}, training {train}"), &a, &b)?;
                let weight = random(&dims)?;
                let (da, db) = ((a * &weight)?.sum_all()?.backward()?, (b * &weight)?.sum_all()?.backward()?);
                close("gradient at x", da.get(&x).expect("ours"), db.get(&x).expect("theirs"))?;
                if let (Some((w, b)), Some((their_w, their_b))) = (ours.weight_and_bias(), theirs.weight_and_bias()) {
                    close("gradient at the weight", da.get(w).expect("ours"), db.get(their_w).expect("theirs"))?;
                    close("gradient at the bias", da.get(b).expect("ours"), db.get(their_b).expect("theirs"))?;
                }
                close("running mean", ours.running_mean(), theirs.running_mean())?;
                close("running variance", ours.running_var(), theirs.running_var())?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_layers_weights_are_packed_once_unless_they_are_trained() -> Result<()> {
    let (x, w) = (random(&[1, 3, 8, 8])?, random(&[4, 3, 3, 3])?);
    let fixed = swath_candle::Conv2d::new(w.clone(), None, Default::default());
    for x in [x.clone(), Tensor::cat(&[&x, &x], 0)?, x.clone()] {
        close("fixed", &fixed.forward(&x)?, &x.conv2d(&w, 0, 1, 1, 1)?)?;
    }
    let x_var = Var::from_tensor(&x)?;
    for _ in 0..2 {
        let theirs = || x_var.conv2d(&w, 0, 1, 1, 1);
        same("frozen", &[&x_var], &|| fixed.forward(&x_var), &theirs)?;
    }
    let var = Var::from_tensor(&w)?;
    let trained = swath_candle::Conv2d::new(var.as_tensor().clone(), None, Default::default());
    trained.forward(&x)?;
    var.set(&(&w * 2.0)?)?;
    close("changed", &trained.forward(&x)?, &x.conv2d(&(w * 2.0)?, 0, 1, 1, 1)?)
}

#[test]
fn adamw_steps_as_candles() -> Result<()> {
    let params = ParamsAdamW { lr: 0.02, beta1: 0.8, beta2: 0.95, eps: 1e-6, weight_decay: 0.1 };
    // More than a thread's piece, one whose gradient is not contiguous, and one that has none.
    let make = || -> Result<[Var; 3]> { Ok([var(&[150, 130])?, var(&[7, 5])?, var(&[3])?]) };
    let (ours, theirs) = (make()?, make()?);
    let loss = |v: &[Var; 3]| v[0].sqr()?.mean_all()? + v[1].t()?.matmul(&random(&[7, 2])?)?.sqr()?.sum_all()?;
    let integers = Var::zeros(3, candle_core::DType::U32, &CPU)?;
    let mut a = swath_candle::AdamW::new([&ours[..], &[integers]].concat(), params.clone())?;
    let mut b = candle_nn::AdamW::new(theirs.to_vec(), params)?;
    for step in 0..20 {
        if step == 10 {
            a.set_learning_rate(0.005);
            b.set_learning_rate(0.005);
        }
        a.backward_step(&loss(&ours)?)?;
        b.backward_step(&loss(&theirs)?)?;
    }
    assert_eq!((a.learning_rate(), a.params().beta1), (0.005, 0.8));
    for (a, b) in ours.iter().zip(&theirs) {
        close("variables", a, b)?;
    }
    close("no gradient, no step", &ours[2], &random(&[3])?)?;

    let of_f64 = Var::zeros(3, candle_core::DType::F64, &CPU)?;
    let error = swath_candle::AdamW::new_lr(vec![of_f64], 0.1).unwrap_err().to_string();
    assert!(error.contains("variables of f32"), "{error}");
    Ok(())
}

#[test]
fn wrong_tensors_are_errors() -> Result<()> {
    let (x, w) = (random(&[1, 3, 8, 8])?, random(&[4, 3, 3, 3])?);
    let refused = |r: Result<Tensor>, part: &str| {
        let e = r.unwrap_err().to_string();
        assert!(e.contains(part), "{e}");
    };
    let config = Conv2dConfig::default();
    refused(swath_candle::conv2d(&x, &w.narrow(1, 0, 2)?, None, &config), "3");
    refused(swath_candle::conv2d(&x, &w, Some(&random(&[5])?), &config), "the bias has 5 elements");
    refused(swath_candle::conv2d(&x, &w.to_dtype(candle_core::DType::F64)?, None, &config), "f32");
    refused(swath_candle::conv2d(&x, &w, None, &Conv2dConfig { stride: 0, ..config }), "stride");
    refused(swath_candle::conv2d(&x.narrow(2, 0, 2)?, &w, None, &config), "2");
    assert_eq!(swath_candle::conv2d(&x.narrow(0, 0, 0)?, &w, None, &config)?.dims(), [0, 4, 6, 6]);
    refused(swath_candle::max_pool2d(&x, 9, 1), "9");
    refused(swath_candle::upsample_nearest2d(&x, 0, 4), "0");
    let vb = VarBuilder::zeros(candle_core::DType::F32, &CPU);
    let norm = swath_candle::batch_norm(4, 1e-5, vb.clone())?;
    refused(norm.forward_train(&x), "3 channels");
    refused(norm.forward_train(&random(&[1, 4, 1, 1])?), "needs 2 values");
    assert!(swath_candle::batch_norm(4, -1.0, vb).unwrap_err().to_string().contains("-1"));
    Ok(())
}

/// The same network trains to the same losses on candle's convolutions and on ours.
#[test]
fn training_has_the_same_losses() -> Result<()> {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, candle_core::DType::F32, &CPU);
    let first = candle_nn::conv2d(1, 8, 3, Conv2dConfig { padding: 1, ..Default::default() }, vb.pp("first"))?;
    let second = candle_nn::conv2d(8, 16, 3, Default::default(), vb.pp("second"))?;
    let last = candle_nn::linear(16 * 5 * 5, 4, vb.pp("last"))?;
    let start: Vec<Tensor> = variables.all_vars().iter().map(|v| v.as_tensor().copy()).collect::<Result<_>>()?;
    let ours: [swath_candle::Conv2d; 2] = [first.clone().into(), second.clone().into()];
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
            let y = if swath { swath_candle::max_pool2d_as_candle(&y, 2, 2)? } else { y.max_pool2d(2)? };
            let y = last.forward(&second.forward(&y)?.relu()?.flatten_from(1)?)?;
            let loss = candle_nn::loss::cross_entropy(&y, &classes)?;
            sgd.backward_step(&loss)?;
            losses.push(loss.to_scalar::<f32>()?);
        }
        Ok(losses)
    };
    let (theirs, ours) = (train(&first, &second, false)?, train(&ours[0], &ours[1], true)?);
    assert!(theirs[29] < theirs[0], "{theirs:?}");
    for (a, b) in theirs.iter().zip(&ours) {
        assert!((a - b).abs() < 1e-3, "{theirs:?} {ours:?}");
    }
    Ok(())
}
