//! Batches in an order that follows from seed and epoch alone, made by threads ahead of time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use super::batch::Batch;
use super::dataset::Dataset;
use super::sample::Sample;
use crate::error::{Error, Result};
use crate::random::Random;

/// Makes batches of a data set.
///
/// The order of an epoch and every random choice of a sample follow from the seed, the epoch and the sample's number
/// alone. So the batches are the same for any number of threads, and a run can go on in the middle of an epoch.
///
/// ```
/// use swath::data::{Glyphs, Loader};
/// let loader = Loader::new(Glyphs::new(100, 1), 32)?.shuffle(true).seed(7).threads(2).drop_last(true);
/// assert_eq!(loader.batches(), 3);
/// for batch in loader.epoch(0) {
///     let batch = batch?;
///     assert_eq!((batch.input.dims()[0], batch.labels.len()), (32, 32));
/// }
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone)]
pub struct Loader {
    dataset: Arc<dyn Dataset>,
    batch: usize,
    shuffle: bool,
    drop_last: bool,
    seed: u64,
    threads: usize,
    prefetch: usize,
}

/// Tells the random numbers of an order from those of a sample.
const ORDER: u64 = 0x006f_7264_6572;

impl Loader {
    /// Batches of `batch` samples, in the data set's order, the last one shorter, made by one thread ahead of time.
    ///
    /// # Errors
    /// If a batch is to have no sample.
    pub fn new(dataset: impl Dataset + 'static, batch: usize) -> Result<Self> {
        if batch == 0 {
            let rule = "it must be at least 1".into();
            return Err(Error::Setting { what: "the batch size", value: "0".into(), rule });
        }
        let dataset = Arc::new(dataset);
        Ok(Self { dataset, batch, shuffle: false, drop_last: false, seed: 0, threads: 1, prefetch: 2 })
    }

    /// Whether each epoch has an order of its own, `false` by default.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// Whether a last batch that is not full is left out, `false` by default.
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.drop_last = drop_last;
        self
    }

    /// The seed of orders and samples, 0 by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Threads that make batches ahead of time, 1 by default. None: the thread that asks for them.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.min(256);
        self
    }

    /// Batches that each thread makes ahead, 2 by default.
    pub fn prefetch(mut self, prefetch: usize) -> Self {
        self.prefetch = prefetch.clamp(1, 1024);
        self
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.dataset
    }

    /// Samples of a full batch.
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> usize {
        let n = self.dataset.len();
        if self.drop_last { n / self.batch } else { n.div_ceil(self.batch) }
    }

    /// The numbers of the samples of an epoch, in order.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        let n = self.dataset.len();
        if self.shuffle { Random::new(&[self.seed, epoch, ORDER]).permutation(n) } else { (0..n).collect() }
    }

    /// The batches of an epoch.
    pub fn epoch(&self, epoch: u64) -> Batches {
        self.epoch_from(epoch, 0)
    }

    /// The batches of an epoch from the one of number `first` on: the very ones that [`Loader::epoch`] would go on with.
    pub fn epoch_from(&self, epoch: u64, first: usize) -> Batches {
        let order = Arc::new(self.order(epoch));
        let maker = Maker { loader: self.clone(), order, epoch, sample: Sample::default() };
        let workers = (0..self.threads).map(|w| Worker::start(maker.clone(), first + w, self.threads, self.prefetch));
        Batches { workers: workers.collect(), own: maker, next: first, end: self.batches(), failed: false }
    }
}

/// Makes any batch of an epoch.
#[derive(Clone)]
struct Maker {
    loader: Loader,
    order: Arc<Vec<usize>>,
    epoch: u64,
    sample: Sample,
}

impl Maker {
    fn make(&mut self, number: usize, batch: &mut Batch) -> Result<()> {
        let Loader { dataset, batch: size, seed, .. } = &self.loader;
        let numbers = &self.order[number * size..self.order.len().min((number + 1) * size)];
        batch.clear();
        for &index in numbers {
            let mut random = Random::new(&[*seed, self.epoch, index as u64]);
            dataset.get(index, &mut random, &mut self.sample)?;
            batch.push(index, &self.sample, numbers.len(), dataset.classes().len())?;
        }
        Ok(())
    }
}

/// A thread that makes every n-th batch. Batches come out of its channel in order, so no one has to sort them.
struct Worker {
    made: Option<Receiver<Result<Batch>>>,
    /// Batches whose memory is to be used again.
    used: Sender<Batch>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(mut maker: Maker, first: usize, step: usize, ahead: usize) -> Result<Self> {
        // One is being made while the others wait.
        let (send, made): (SyncSender<Result<Batch>>, _) = sync_channel(ahead - 1);
        let (used, reuse) = channel::<Batch>();
        let run = move || {
            for number in (first..maker.loader.batches()).step_by(step) {
                let made = reuse.try_recv().map_or_else(|_| Batch::new(), Ok).and_then(|mut batch| {
                    maker.make(number, &mut batch)?;
                    Ok(batch)
                });
                let failed = made.is_err();
                // Nobody listens any more: the epoch was left early.
                if send.send(made).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("swath loader".into()).spawn(run);
        let thread = thread.map_err(|e| Error::Threads { reason: e.to_string() })?;
        Ok(Self { made: Some(made), used, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A thread that waits for room sees that nobody listens.
        self.made = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The batches of an epoch, in order; nothing after the first error.
pub struct Batches {
    workers: VecDeque<Result<Worker>>,
    own: Maker,
    next: usize,
    end: usize,
    failed: bool,
}

impl Batches {
    /// The number of the next batch in the epoch.
    pub fn position(&self) -> usize {
        self.next
    }

    /// Replaces `batch` by the next one, and uses its memory for a later one. `false`: the epoch is over.
    ///
    /// # Errors
    /// Those of [`Dataset::get`], and for samples that do not go together.
    pub fn next_into(&mut self, batch: &mut Batch) -> Result<bool> {
        if self.next >= self.end || self.failed {
            return Ok(false);
        }
        let made = self.advance(batch);
        self.failed = made.is_err();
        self.next += 1;
        made.map(|()| true)
    }

    fn advance(&mut self, batch: &mut Batch) -> Result<()> {
        let Some(worker) = self.workers.pop_front() else {
            return self.own.make(self.next, batch);
        };
        let worker = worker?;
        let ended = || Error::Threads { reason: "a thread that makes batches has ended early".into() };
        let made = worker.made.as_ref().and_then(|m| m.recv().ok()).ok_or_else(ended)??;
        // The thread may have ended, with all its batches made.
        let _ = worker.used.send(core::mem::replace(batch, made));
        self.workers.push_back(Ok(worker));
        Ok(())
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = match Batch::new() {
            Ok(batch) => batch,
            Err(e) => return Some(Err(e)),
        };
        match self.next_into(&mut batch) {
            Ok(true) => Some(Ok(batch)),
            Ok(false) => None,
            Err(e) => Some(Err(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test::Numbers;
    use super::*;

    fn labels(loader: &Loader, epoch: u64) -> Vec<Vec<usize>> {
        loader.epoch(epoch).map(|b| b.unwrap().labels).collect()
    }

    #[test]
    fn the_same_batches_for_any_number_of_threads() {
        let loader = |threads| Loader::new(Numbers(103), 10).unwrap().shuffle(true).seed(3).threads(threads);
        let values = |threads| -> Vec<f32> {
            loader(threads).epoch(1).flat_map(|b| b.unwrap().input.as_slice().to_vec()).collect()
        };
        let one = values(0);
        assert_eq!(one.len(), 103);
        assert!((1..6).all(|threads| values(threads) == one));
        assert_eq!(
            labels(&loader(2), 1).iter().map(Vec::len).collect::<Vec<_>>(),
            [[10; 10].as_slice(), &[3]].concat()
        );
    }

    #[test]
    fn orders_follow_from_seed_and_epoch() {
        let loader = |seed| Loader::new(Numbers(50), 7).unwrap().shuffle(true).seed(seed);
        let flat = |seed, epoch| labels(&loader(seed), epoch).concat();
        let mut sorted = flat(0, 0);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_eq!(flat(0, 1), flat(0, 1));
        assert!(flat(0, 0) != flat(0, 1) && flat(0, 0) != flat(1, 0));
        // Random choices differ from epoch to epoch also without shuffling.
        let plain = Loader::new(Numbers(5), 5).unwrap();
        let values = |epoch| plain.epoch(epoch).next().unwrap().unwrap().input.as_slice().to_vec();
        assert!(values(0) == values(0) && values(0) != values(1));
        assert_eq!(labels(&plain, 1), [[0, 1, 2, 3, 4]]);
    }

    #[test]
    fn an_epoch_goes_on_in_the_middle_and_memory_is_used_again() {
        let loader = Loader::new(Numbers(40), 6).unwrap().shuffle(true).threads(2).drop_last(true);
        let all = labels(&loader, 4);
        assert_eq!((all.len(), loader.batches()), (6, 6));
        for first in 0..=6 {
            let (mut batch, mut rest) = (Batch::new().unwrap(), loader.epoch_from(4, first));
            for want in &all[first..] {
                assert!(rest.next_into(&mut batch).unwrap());
                assert_eq!(&batch.labels, want);
            }
            assert!(!rest.next_into(&mut batch).unwrap());
        }
        assert_eq!(loader.epoch_from(0, 99).count(), 0);
    }

    #[test]
    fn an_error_ends_the_epoch() {
        for threads in [0, 1, 3] {
            // Numbers refuses the sample 13.
            let loader = Loader::new(Numbers(14), 2).unwrap().threads(threads);
            let loader = Loader { dataset: Arc::new(super::super::test::Refusing(loader.dataset.clone())), ..loader };
            let made: Vec<_> = loader.epoch(0).collect();
            assert_eq!(made.len(), 7);
            assert!(made[..6].iter().all(Result::is_ok));
            assert!(made[6].as_ref().unwrap_err().to_string().contains("13"));
        }
        assert!(Loader::new(Numbers(1), 0).is_err());
    }

    #[test]
    fn an_epoch_may_be_left_early() {
        let loader = Loader::new(Numbers(10_000), 1).unwrap().threads(3);
        let mut batches = loader.epoch(0);
        assert_eq!(batches.next().unwrap().unwrap().labels, [0]);
        drop(batches);
    }
}
