//! Plans: choice, refusal, and weights that fit no other plan.

use swath::{Accuracy, ConvPlan, ConvShape, Epilogue, Error, Layout, Options, Scratch, Tuning};

#[test]
fn weights_packed_for_another_layout_are_refused() {
    let shape = ConvShape::builder([1, 8, 6, 6], [48, 4, 3, 3]).groups(2).build().unwrap();
    let plan = |output| {
        let options = Options { output, algo: Some("gemm".into()), ..Options::default() };
        ConvPlan::new(&shape, &options).unwrap()
    };
    let (nchw, blocked) = (plan(Layout::Nchw), plan(Layout::Blocked));
    let weights = nchw.pack(&[0.5; 48 * 4 * 9]).unwrap();
    let (x, mut y) = ([1.0; 8 * 36], vec![0.0; 48 * 16]);
    let error = blocked.forward(&x, &weights, Epilogue::none(), &mut y, &mut Scratch::new()).unwrap_err();
    assert!(matches!(error, Error::Weights { .. }), "{error}");
    nchw.forward(&x, &weights, Epilogue::none(), &mut y, &mut Scratch::new()).unwrap();
    assert!(y.iter().all(|v| *v == 18.0));
}

#[test]
fn algorithms_are_chosen_by_name_or_by_the_model() {
    let dense = ConvShape::builder([1, 64, 14, 14], [64, 64, 3, 3]).padding(1).build().unwrap();
    let depthwise = ConvShape::builder([1, 64, 14, 14], [64, 1, 3, 3]).padding(1).groups(64).build().unwrap();
    // Untuned, whatever the machine's tuning file says.
    let algo = |shape, options: &Options| {
        let options = Options { tuning: Tuning::Off, ..options.clone() };
        ConvPlan::new(shape, &options).map(|p| p.algo())
    };
    let exact = |options| Options { accuracy: Accuracy::Exact, ..options };
    assert_eq!(algo(&dense, &exact(Options::blocked())).unwrap(), "direct");
    assert_eq!(algo(&dense, &exact(Options::default())).unwrap(), "stem");
    assert!(algo(&dense, &Options::blocked()).unwrap().starts_with("winograd"));
    for input in Layout::ALL {
        assert_eq!(algo(&depthwise, &Options { input, ..Options::blocked() }).unwrap(), "depthwise", "{input:?}");
    }
    let asked = |name: &str| Options { algo: Some(name.into()), ..Options::blocked() };
    assert_eq!(algo(&dense, &asked("gemm")).unwrap(), "gemm");
    let unknown = algo(&dense, &asked("magic")).unwrap_err().to_string();
    assert!(unknown.contains("magic") && unknown.contains("direct"), "{unknown}");
    let refused = algo(&dense, &asked("depthwise")).unwrap_err().to_string();
    assert!(refused.contains("one group"), "{refused}");
}

#[test]
fn wrong_lengths_are_errors_with_both_numbers() {
    let shape = ConvShape::builder([1, 3, 8, 8], [5, 3, 3, 3]).build().unwrap();
    let plan = ConvPlan::new(&shape, &Options::default()).unwrap();
    let error = plan.pack(&[0.0; 7]).unwrap_err().to_string();
    assert!(error.contains("7") && error.contains("135"), "{error}");
    let weights = plan.pack(&[0.0; 135]).unwrap();
    let run = |x: usize, bias: usize, y: usize| {
        let (x, bias, mut y) = (vec![0.0; x], vec![0.0; bias], vec![0.0; y]);
        plan.forward(&x, &weights, Epilogue::bias(&bias), &mut y, &mut Scratch::new())
    };
    assert!(run(192, 5, 180).is_ok());
    for (x, bias, y, numbers) in [(191, 5, 180, ["191", "192"]), (192, 4, 180, ["4", "5"]), (192, 5, 1, ["1", "180"])] {
        let error = run(x, bias, y).unwrap_err().to_string();
        assert!(numbers.iter().all(|n| error.contains(n)), "{error}");
    }
}
