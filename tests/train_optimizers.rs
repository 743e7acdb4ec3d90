//! Optimizers, clipping and schedules against PyTorch's results in float64.
#![cfg(feature = "nn")]

#[allow(dead_code)] // not every test uses all of it
mod support;

use serde_json::Value;
use support::{Fixtures, assert_close};
use swath::Result;
use swath::train::schedule::*;
use swath::train::{Adam, AdamW, Adjust, Clip, Optimization, Optimizer, Rates, RmsProp, Sgd};

/// The rule of a case of `tools/scripts/make_fixtures_2.py`.
fn optimizer(case: &str) -> Result<Optimization> {
    match case {
        "sgd_damped" => new(Sgd::new(0.1).momentum(0.9).dampening(0.5).weight_decay(0.1)),
        "sgd_nesterov_decay" => new(Sgd::new(0.05).momentum(0.8).nesterov(true).weight_decay(0.01)),
        "adam_decay" => new(Adam::new(0.1).weight_decay(0.1)),
        "adam_amsgrad" => new(Adam::new(0.05).amsgrad(true)),
        "adamw" => new(AdamW::new(0.1).betas(0.8, 0.95).weight_decay(0.1)),
        "rmsprop_centered" => new(RmsProp::new(0.1).momentum(0.9).centered(true)),
        "rmsprop_decay" => new(RmsProp::new(0.01).weight_decay(0.1)),
        _ => panic!("no rule for {case}"),
    }
}

fn new(rule: impl Optimizer + 'static) -> Result<Optimization> {
    Optimization::new(rule)
}

fn check_optimizer(fixtures: &Fixtures, case: &str) {
    let tensor = |name: &str| fixtures.tensor(&format!("{case}.{name}")).1;
    let (mut p, grads, steps) = (tensor("p0"), tensor("grads"), tensor("steps"));
    let mut o = optimizer(case).unwrap();
    let id = o.register("p", &[p.len()]).unwrap();
    for (step, (g, want)) in grads.chunks(p.len()).zip(steps.chunks(p.len())).enumerate() {
        o.update(id, &mut p, g, Adjust::NONE).unwrap();
        assert_close(&format!("{case} after step {step}"), &p, want, 1e-5);
    }
}

fn check_clipping(fixtures: &Fixtures, case: &str, params: &Value) {
    let tensor = |name: &str| fixtures.tensor(&format!("{case}.{name}")).1;
    let (a, b) = (tensor("a"), tensor("b"));
    let max = params["max_norm"].as_f64().unwrap() as f32;
    let (adjust, norm) = Clip::Norm(max).adjust([&a[..], &b], 1);
    assert_close(case, &[norm.unwrap()], &tensor("norm"), 1e-6);
    let clipped = |g: &[f32]| g.iter().map(|g| g * adjust.scale).collect::<Vec<f32>>();
    assert_close(case, &clipped(&a), &tensor("a_after"), 1e-6);
    assert_close(case, &clipped(&b), &tensor("b_after"), 1e-6);
}

/// The schedule of a case of `tools/scripts/make_fixtures_2.py`.
fn schedule(case: &str) -> Box<dyn Schedule> {
    match case {
        "schedule_step" => Box::new(StepLr::new(3).gamma(0.5)),
        "schedule_multistep" => Box::new(MultiStepLr::new([2, 5, 9])),
        "schedule_exponential" => Box::new(ExponentialLr::new(0.9)),
        "schedule_cosine" => Box::new(CosineAnnealingLr::new(8).eta_min(0.01)),
        "schedule_warm_restarts" => Box::new(CosineAnnealingWarmRestarts::new(3).t_mult(2)),
        "schedule_linear" => Box::new(LinearLr::new(4).start_factor(0.25)),
        "schedule_polynomial" => Box::new(PolynomialLr::new(10).power(2.0)),
        "schedule_one_cycle" => Box::new(OneCycleLr::new(1.0, 13)),
        "schedule_one_cycle_three_phase" => Box::new(OneCycleLr::new(1.0, 13).three_phase(true).anneal(Anneal::Linear)),
        "schedule_warmup_cosine" => {
            Box::new(SequentialLr::new(LinearLr::new(3).start_factor(0.25)).then(3, CosineAnnealingLr::new(9)))
        }
        _ => panic!("no schedule for {case}"),
    }
}

fn check_schedule(fixtures: &Fixtures, case: &str) {
    let tensor = |name: &str| fixtures.tensor(&format!("{case}.{name}")).1;
    let s = schedule(case);
    s.check().unwrap();
    let rates: Vec<Rates> = (0..12).map(|i| s.rates(i, Rates { lr: 1.0, momentum: Some(0.9) })).collect();
    assert_close(case, &rates.iter().map(|r| r.lr as f32).collect::<Vec<_>>(), &tensor("lr"), 1e-6);
    assert_close(
        case,
        &rates.iter().map(|r| r.momentum.unwrap() as f32).collect::<Vec<_>>(),
        &tensor("momentum"),
        1e-6,
    );
}

#[test]
fn optimizers_clipping_and_schedules_are_pytorchs() {
    let fixtures = Fixtures::open("optimizers2");
    let mut checked = [0; 3];
    for (case, params) in fixtures.cases() {
        if case.starts_with("schedule_") {
            check_schedule(&fixtures, &case);
            checked[0] += 1;
        } else if case.starts_with("clip_norm_") {
            check_clipping(&fixtures, &case, &params);
            checked[1] += 1;
        } else {
            check_optimizer(&fixtures, &case);
            checked[2] += 1;
        }
    }
    assert_eq!(checked, [10, 2, 7]);
}
