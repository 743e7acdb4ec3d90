//! Epochs as a training run logs them.

use serde::{Deserialize, Serialize};
use swath::train::EpochReport;

/// One epoch in log.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    pub epoch: u64,
    pub loss: f64,
    pub accuracy: Option<f64>,
    pub validation: Option<f64>,
    pub lr: f64,
    pub seconds: f64,
    pub images_per_second: f64,
}

impl From<&EpochReport> for Logged {
    fn from(r: &EpochReport) -> Self {
        let seconds = r.training.as_secs_f64();
        Self {
            epoch: r.epoch,
            loss: r.loss,
            accuracy: r.accuracy,
            validation: r.validation,
            lr: r.lr,
            seconds: seconds + r.validating.as_secs_f64(),
            images_per_second: r.samples as f64 / seconds.max(1e-9),
        }
    }
}
