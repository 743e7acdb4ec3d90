//! The usual loop around a [`Trainer`]: epochs over a loader, validation, the best weights, checkpoints, early stopping.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::checkpoint::{Exact, Progress, Tally};
use super::schedule::{ConstantLr, Schedule};
use super::trainer::Trainer;
use crate::compile::{Session, SessionOptions};
use crate::data::{Batch, Loader};
use crate::error::{Error, Result};
use crate::metrics::{Confusion, argmax};
use crate::model::Model;
use crate::tensor::Tensor;

/// How [`fit`] goes about it.
#[derive(Debug)]
pub struct Fit {
    /// Epochs in all, those before a resumed run included.
    pub epochs: u64,
    /// The learning rate over time.
    pub schedule: Box<dyn Schedule>,
    /// Whether a step of the schedule is a batch; else it is an epoch.
    pub schedule_by_batch: bool,
    /// Stops after more than so many epochs in a row without a better validation.
    pub patience: Option<u64>,
    /// Where the run is kept at rest: after each epoch, and every so many batches.
    pub checkpoint: Option<PathBuf>,
    /// Batches between checkpoints within an epoch; 0 for none.
    pub checkpoint_every: u64,
    /// Where the weights of the best validation are kept.
    pub best: Option<PathBuf>,
    /// How far the run is already.
    pub progress: Progress,
    /// Set to true by whoever wants the run to stop after the next batch; a checkpoint is written first.
    pub stop: Arc<AtomicBool>,
}

impl Fit {
    /// That many epochs at a constant rate.
    pub fn new(epochs: u64) -> Self {
        Self {
            epochs,
            schedule: Box::new(ConstantLr),
            schedule_by_batch: false,
            patience: None,
            checkpoint: None,
            checkpoint_every: 0,
            best: None,
            progress: Progress::default(),
            stop: Arc::default(),
        }
    }
}

/// What happens during [`fit`].
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A batch has been trained on.
    Batch {
        /// Its epoch, from 0.
        epoch: u64,
        /// Batches of this epoch so far, this one included.
        batch: u64,
        /// Batches of an epoch.
        batches: u64,
        /// Its loss.
        loss: f32,
        /// The share of this epoch's pictures so far whose class was right before the update, where there are classes.
        accuracy: Option<f64>,
        /// Pictures of this epoch so far.
        samples: u64,
        /// The learning rate of the first group.
        lr: f64,
    },
    /// An epoch has ended.
    Epoch(&'a EpochReport),
}

/// What an epoch was like.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochReport {
    /// Its number, from 0.
    pub epoch: u64,
    /// The mean loss of its batches.
    pub loss: f64,
    /// The share of its pictures whose class was right before the update, where there are classes.
    pub accuracy: Option<f64>,
    /// The share of the pictures for validation whose class is right; of pixels where there are masks.
    pub validation: Option<f64>,
    /// The learning rate of its last batch.
    pub lr: f64,
    /// Time for training.
    pub training: Duration,
    /// Time for validation.
    pub validating: Duration,
    /// Samples that it trained on, since the run was resumed if that was in the middle.
    pub samples: u64,
}

/// What a loss wants to know of a batch: classes as floats, weights of classes where a picture has two, or the classes of
/// pixels.
///
/// # Errors
/// If the batch has neither classes nor masks.
pub fn targets(batch: &Batch) -> Result<Vec<f32>> {
    let mut targets = Vec::new();
    targets_into(batch, &mut targets)?;
    Ok(targets)
}

/// As [`targets`], in memory that is used again.
fn targets_into(batch: &Batch, targets: &mut Vec<f32>) -> Result<()> {
    targets.clear();
    if !batch.weights.is_empty() {
        targets.extend_from_slice(&batch.weights);
        return Ok(());
    }
    if !batch.labels.is_empty() {
        targets.extend(batch.labels.iter().map(|&l| l as f32));
        return Ok(());
    }
    if !batch.masks.is_empty() {
        targets.extend(batch.masks.iter().map(|&m| f32::from(m)));
        return Ok(());
    }
    let rule = "the data set has neither classes nor masks".into();
    Err(Error::Setting { what: "the target", value: "missing".into(), rule })
}

/// Runs a model on all samples of a loader. `each` gets every batch, and what the model makes of it.
///
/// # Errors
/// Those of the loader, of the model and of `each`.
pub fn predict(
    model: &Model,
    loader: &Loader,
    options: &SessionOptions,
    mut each: impl FnMut(&Batch, &Tensor) -> Result<()>,
) -> Result<()> {
    let options = SessionOptions { input: Default::default(), output: Default::default(), ..options.clone() };
    let mut session: Option<Session> = None;
    let mut batches = loader.epoch(0);
    let mut batch = Batch::new()?;
    while batches.next_into(&mut batch)? {
        let dims = batch.input.dims();
        let mut ready = match session.take().filter(|s| s.input_dims() == dims) {
            Some(ready) => ready,
            None => model.compile_with(dims, &options)?,
        };
        each(&batch, ready.run(&batch.input)?)?;
        session = Some(ready);
    }
    Ok(())
}

/// Runs a model on all samples of a loader, and counts what it takes for what: pictures, or pixels where there are masks,
/// of which [`UNLABELLED`](crate::data::UNLABELLED) ones do not count.
///
/// # Errors
/// Those of the loader, and if the model's output does not fit the classes.
pub fn evaluate(model: &Model, loader: &Loader, options: &SessionOptions) -> Result<Confusion> {
    let classes = loader.dataset().classes().len();
    let mut confusion = Confusion::new(classes)?;
    predict(model, loader, options, |batch, output| {
        if output.dims().get(..2) != Some(&[batch.len(), classes]) {
            let (left, right) = (output.dims().to_vec(), vec![batch.len(), classes]);
            return Err(Error::Shapes { what: "the model's output and the classes", left, right });
        }
        let of_picture = output.as_slice().len() / batch.len();
        for (i, logits) in output.as_slice().chunks(of_picture).enumerate() {
            if of_picture == classes && !batch.labels.is_empty() {
                confusion.add(batch.labels[i], argmax(logits).unwrap_or(0))?;
            } else {
                let pixels = of_picture / classes;
                let mask = batch.masks.get(i * pixels..(i + 1) * pixels).unwrap_or_default();
                let mask: Vec<usize> = mask.iter().map(|&m| m.into()).collect();
                confusion.add_pixels(logits, &mask, Some(crate::data::UNLABELLED.into()))?;
            }
        }
        Ok(())
    })?;
    Ok(confusion)
}

/// Trains for epochs over a loader. `event` hears of every batch and epoch.
///
/// The run goes on from [`Fit::progress`], and with [`Trainer::restore`] before it has the bits of one that never stopped.
/// A validation is better if more is right; the weights that are validated and kept as the best are the average, where one
/// is kept.
///
/// ```
/// use swath::data::{Glyphs, Loader, Transformed, augment::Normalize};
/// use swath::nn::*;
/// use swath::train::loss::CrossEntropyLoss;
/// use swath::train::{Adam, Fit, Optimization, Trainer, fit};
/// let data = |len, seed| Transformed::new(Glyphs::new(len, seed).size(16).classes(2)).with(Normalize::new([0.5], [0.25]));
/// let train = Loader::new(data(256, 1), 32)?.shuffle(true).drop_last(true);
/// let validation = Loader::new(data(64, 2), 32)?;
/// let model = Sequential::new((
///     Conv2d::new(1, 8, 3).padding(1), ReLU, MaxPool2d::new(4), Flatten, Linear::new(8 * 16, 2),
/// )).build(1)?;
/// let optimization = Optimization::new(Adam::new(1e-2))?;
/// let mut trainer = Trainer::new(model, CrossEntropyLoss::new(), optimization, &Default::default())?;
/// let epochs = fit(&mut trainer, &train, Some(&validation), Fit::new(6), &mut |_| ())?;
/// assert!(epochs[5].loss < 0.5 * epochs[0].loss);
/// assert!(epochs[5].validation.unwrap() > 0.8);
/// # Ok::<(), swath::Error>(())
/// ```
///
/// # Errors
/// Those of the data, of a step, and of files.
pub fn fit(
    trainer: &mut Trainer,
    train: &Loader,
    validation: Option<&Loader>,
    mut options: Fit,
    event: &mut dyn FnMut(Event<'_>),
) -> Result<Vec<EpochReport>> {
    let mut reports = Vec::new();
    // A run that was tired when it was kept is so when it is resumed.
    let tired = |options: &Fit| options.patience.is_some_and(|patience| options.progress.since_best > patience);
    while options.progress.epoch < options.epochs && !tired(&options) {
        let Some(mut report) = epoch(trainer, train, &mut options, event)? else { break };
        let validated = Instant::now();
        if let Some(loader) = validation {
            let model = trainer.averaged_model()?;
            let right = evaluate(&model, loader, trainer.session_options())?.accuracy();
            (report.validation, report.validating) = (Some(right), validated.elapsed());
            options.schedule.observe(right);
            if options.progress.best.is_none_or(|best| right > best.0) {
                (options.progress.best, options.progress.since_best) = (Some(Exact(right)), 0);
                if let Some(path) = &options.best {
                    model.save_safetensors(path)?;
                }
            } else {
                options.progress.since_best += 1;
            }
        } else {
            options.schedule.observe(report.loss);
        }
        (options.progress.epoch, options.progress.batch) = (report.epoch + 1, 0);
        // Before the run is kept: who dies in between does the epoch again, and hears of it again.
        event(Event::Epoch(&report));
        save(trainer, &options)?;
        reports.push(report);
        if options.stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(reports)
}

/// Trains the rest of an epoch. `None`: it was stopped.
fn epoch(
    trainer: &mut Trainer,
    train: &Loader,
    options: &mut Fit,
    event: &mut dyn FnMut(Event<'_>),
) -> Result<Option<EpochReport>> {
    let (start, epoch, mut batch) = (Instant::now(), options.progress.epoch, Batch::new()?);
    let mut batches = train.epoch_from(epoch, options.progress.batch as usize);
    let (mut wanted, mut samples) = (Vec::new(), 0);
    if options.progress.batch > 0 {
        // Resumed, maybe behind the last batch: the rates are those of the step before.
        let step = if options.schedule_by_batch { trainer.steps().saturating_sub(1) } else { epoch };
        trainer.optimization().follow(&*options.schedule, step)?;
    }
    while batches.next_into(&mut batch)? {
        let step = if options.schedule_by_batch { trainer.steps() } else { epoch };
        trainer.optimization().follow(&*options.schedule, step)?;
        targets_into(&batch, &mut wanted)?;
        let report = trainer.step(batch.input.dims(), batch.input.as_slice(), &wanted)?;
        samples += batch.len() as u64;
        options.progress.tally.add(report.loss, &batch, trainer.last_output().unwrap_or_default());
        options.progress.batch = batches.position() as u64;
        let (number, tally) = (options.progress.batch, &options.progress.tally);
        event(Event::Batch {
            epoch,
            batch: number,
            batches: train.batches() as u64,
            loss: report.loss,
            accuracy: tally.accuracy(),
            samples: tally.samples,
            lr: trainer.optimization().first_rates().lr,
        });
        // Between updates a run cannot rest: gradients that were gathered are not kept.
        let every = options.checkpoint_every;
        let rests = trainer.pending() == 0;
        let stopped = options.stop.load(Ordering::Relaxed);
        if rests && (stopped || every > 0 && number.is_multiple_of(every)) {
            save(trainer, options)?;
        }
        if rests && stopped {
            return Ok(None);
        }
    }
    // Micro-batches that are too few for an update of their own: a run rests at an epoch's end.
    trainer.update()?;
    let tally = core::mem::take(&mut options.progress.tally);
    Ok(Some(EpochReport {
        epoch,
        loss: tally.loss.0 / tally.batches.max(1) as f64,
        accuracy: tally.accuracy(),
        validation: None,
        lr: trainer.optimization().first_rates().lr,
        training: start.elapsed(),
        validating: Duration::ZERO,
        samples,
    }))
}

impl Tally {
    fn add(&mut self, loss: f32, batch: &Batch, logits: &[f32]) {
        self.loss = Exact(self.loss.0 + f64::from(loss));
        self.batches += 1;
        self.samples += batch.len() as u64;
        self.labelled += batch.labels.len() as u64;
        self.right += count(logits, &batch.labels);
    }

    fn accuracy(&self) -> Option<f64> {
        (self.labelled > 0).then(|| self.right as f64 / self.labelled as f64)
    }
}

/// In how many rows of logits the label is the largest.
fn count(logits: &[f32], labels: &[usize]) -> u64 {
    let classes = logits.len().checked_div(labels.len()).unwrap_or(0).max(1);
    logits.chunks(classes).zip(labels).filter(|(row, label)| argmax(row) == Some(**label)).count() as u64
}

fn save(trainer: &Trainer, options: &Fit) -> Result<()> {
    match &options.checkpoint {
        Some(path) => trainer.checkpoint(options.progress.clone(), &*options.schedule)?.save(path),
        None => Ok(()),
    }
}
