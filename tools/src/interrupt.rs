//! Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Becomes true when the user presses Ctrl-C; a second time ends the program.
pub fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let handler = move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    };
    // Without it Ctrl-C ends the program at once, and the last checkpoint is there all the same.
    if let Err(e) = ctrlc::set_handler(handler) {
        eprintln!("swath: Ctrl-C will not save: {e}");
    }
    stop
}
