//! The rayon pool that a run is called from: the only file that names rayon.

use swath_kernels::exec::Executor;

/// Whether the calling thread is one of a rayon pool's.
pub(super) fn inside() -> bool {
    rayon::current_thread_index().is_some()
}

/// Threads of the pool that the calling thread is of, else of rayon's global one.
pub(super) fn threads() -> usize {
    rayon::current_num_threads()
}

/// An executor over the pool that the calling thread is of, using at most a given number of its threads. A thread that
/// waits for another takes whatever its pool has to do meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    pub(super) threads: usize,
}

impl Executor for Guest {
    fn threads(&self) -> usize {
        self.threads
    }

    fn spread(&self, job: &(dyn Fn() + Sync)) {
        // Halves by `join`: unlike a scope's, its jobs lie on the stack.
        fn run(calls: usize, job: &(dyn Fn() + Sync)) {
            if calls == 1 {
                return job();
            }
            rayon::join(|| run(calls - calls / 2, job), || run(calls / 2, job));
        }
        run(self.threads, job);
    }

    fn seat(&self) -> usize {
        rayon::current_thread_index().unwrap_or(0)
    }
}

/// Runs `f` in a pool of its own.
#[cfg(test)]
pub(super) fn pool<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}
