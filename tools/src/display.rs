//! A training run as it goes: a bar that moves, a line for each epoch, a log and a picture of the curves.

use std::fmt::Write as _;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use swath::train::Event;

use crate::curves;
use crate::epochs::Logged;
use crate::failure::{Failure, Outcome};
use crate::files;

/// How many batches a run has, and how many of them are behind it.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    pub epochs: u64,
    /// Of an epoch.
    pub batches: u64,
    pub done: u64,
}

/// Shows the run as it goes, and keeps its log.
pub struct Display {
    bar: ProgressBar,
    extent: Extent,
    start: Instant,
    /// The loss of late, smoothed so that it can be read.
    loss: f64,
    log: Vec<Logged>,
    /// Where log and picture are kept.
    folder: Option<PathBuf>,
    /// Set when the output has no reader any more, or the log cannot be written: the run saves and ends.
    stop: Arc<AtomicBool>,
    failure: Option<Failure>,
}

impl Display {
    /// A bar on stderr, if that is a terminal, and lines on stdout. `stop` is set where going on makes no sense.
    pub fn new(extent: Extent, stop: Arc<AtomicBool>) -> Self {
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        let (start, log) = (Instant::now(), Vec::new());
        Self { bar, extent, start, loss: f64::NAN, log, folder: None, stop, failure: None }
    }

    /// Keeps log.json and curves.svg in a folder; a resumed run goes on with the epochs that are there.
    pub fn keep(mut self, folder: &Path) -> Self {
        let path = folder.join("log.json");
        if self.extent.done > 0 && path.exists() {
            let earlier = files::read_text(&path).map(|text| serde_json::from_str::<Vec<Logged>>(&text));
            match earlier {
                Ok(Ok(log)) => self.log = log,
                _ => log::warn!("{}: not a log of this program; it starts anew", path.display()),
            }
        }
        self.folder = Some(folder.into());
        self
    }

    /// Hears of a batch or an epoch.
    pub fn hear(&mut self, event: Event<'_>) {
        match event {
            Event::Batch { epoch, batch, loss, accuracy, samples, .. } => {
                let loss = f64::from(loss);
                self.loss = if self.loss.is_nan() || batch == 1 { loss } else { 0.98 * self.loss + 0.02 * loss };
                self.bar.set_message(self.line(epoch, batch, accuracy, samples));
            }
            Event::Epoch(report) => {
                let logged = Logged::from(report);
                let line = describe(&logged);
                let shown = self.bar.suspend(|| writeln!(stdout(), "{line}"));
                // What was logged and then lost is done again.
                self.log.retain(|l| l.epoch < logged.epoch);
                self.log.push(logged);
                if let Err(failure) = shown.map_err(Failure::from).and_then(|()| self.write()) {
                    self.failure.get_or_insert(failure);
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// `epoch 2/4 [=====>    ] loss 0.0954, right 97.1 %, 5468 pictures/s, 12 s left`
    fn line(&self, epoch: u64, batch: u64, accuracy: Option<f64>, samples: u64) -> String {
        let Extent { epochs, batches, done: before } = self.extent;
        let seconds = self.start.elapsed().as_secs_f64().max(1e-9);
        let done = (epoch * batches + batch).saturating_sub(before).max(1);
        let rate = done as f64 * (samples as f64 / batch.max(1) as f64) / seconds;
        let left = (epochs * batches).saturating_sub(before + done) as f64 * seconds / done as f64;
        let filled = (20 * batch / batches.max(1)).min(20) as usize;
        let bar = format!("{:<20}", format!("{}{}", "=".repeat(filled), if filled < 20 { ">" } else { "" }));
        let mut line = format!("epoch {}/{epochs} [{bar}] loss {:.4}", epoch + 1, self.loss);
        if let Some(right) = accuracy {
            let _ = write!(line, ", right {:.1} %", 100.0 * right);
        }
        let left = humantime::format_duration(Duration::from_secs(left.ceil() as u64));
        let _ = write!(line, ", {rate:.0} pictures/s, {left} left");
        line
    }

    fn write(&self) -> Outcome<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let json = serde_json::to_string_pretty(&self.log).map_err(Failure::new)?;
        files::write_text(&folder.join("log.json"), &format!("{json}\n"))?;
        files::write_text(&folder.join("curves.svg"), &curves::draw(&self.log)?)
    }

    /// Takes the bar away; the epochs in all, or what went wrong while they were shown.
    pub fn end(self) -> Outcome<Vec<Logged>> {
        self.bar.finish_and_clear();
        self.failure.map_or(Ok(self.log), Err)
    }
}

/// `epoch 2: loss 0.1023, right 97.13 % in training, 98.10 % in validation; 2.4 s, 5468 pictures/s`
fn describe(l: &Logged) -> String {
    let percent = |v: Option<f64>| v.map_or("-".into(), |v| format!("{:.2} %", 100.0 * v));
    format!(
        "epoch {}: loss {:.4}, right {} in training, {} in validation; {:.1} s, {:.0} pictures/s",
        l.epoch + 1,
        l.loss,
        percent(l.accuracy),
        percent(l.validation),
        l.seconds,
        l.images_per_second
    )
}

#[cfg(test)]
mod tests {
    use swath::train::EpochReport;

    use super::*;

    fn logged(epoch: u64) -> Logged {
        let (accuracy, validation) = (Some(0.9713), Some(0.981));
        Logged { epoch, loss: 0.1023, accuracy, validation, lr: 1e-3, seconds: 2.41, images_per_second: 5467.5 }
    }

    #[test]
    fn lines_say_what_a_run_does() {
        let display = Display::new(Extent { epochs: 4, batches: 10, done: 10 }, Arc::default());
        let line = display.line(1, 5, Some(0.971), 320);
        assert!(line.starts_with("epoch 2/4 [==========>         ] loss NaN, right 97.1 %, "), "{line}");
        assert!(line.contains(" pictures/s, ") && line.ends_with(" left"), "{line}");
        let line = describe(&logged(1));
        assert_eq!(
            line,
            "epoch 2: loss 0.1023, right 97.13 % in training, 98.10 % in validation; 2.4 s, 5468 pictures/s"
        );
    }

    #[test]
    fn a_resumed_run_goes_on_with_its_log_and_does_lost_epochs_again() {
        let folder = std::env::temp_dir().join(format!("swath-display-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let report = EpochReport {
            epoch: 1,
            loss: 0.1,
            accuracy: None,
            validation: None,
            lr: 1e-3,
            training: Duration::from_secs(1),
            validating: Duration::ZERO,
            samples: 320,
        };
        // The log after a run that resumes at so many batches has heard of epoch 1.
        let epochs = |done| {
            let mut display = Display::new(Extent { epochs: 4, batches: 10, done }, Arc::default()).keep(&folder);
            display.hear(Event::Epoch(&report));
            display.log.iter().map(|l| l.epoch).collect::<Vec<_>>()
        };
        let log = |epochs| serde_json::to_string(&(0..epochs).map(logged).collect::<Vec<_>>()).unwrap();
        for (kept, done, expected) in [(1, 0, vec![1]), (1, 10, vec![0, 1]), (2, 20, vec![0, 1]), (3, 15, vec![0, 1])] {
            std::fs::write(folder.join("log.json"), log(kept)).unwrap();
            assert_eq!(epochs(done), expected, "{kept} epochs logged, {done} batches done");
        }
        std::fs::write(folder.join("log.json"), "[{}]").unwrap();
        assert_eq!(epochs(30), [1]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
