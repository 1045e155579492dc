//! Ctrl-C and its like: noted, and looked at wherever somebody waits, so that everything is cleaned up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::error::LabError;

/// How often somebody who waits looks.
const LOOK: Duration = Duration::from_millis(10);

/// Whether somebody wants all this to end.
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// From now on these signals do not end the process.
    ///
    /// # Errors
    ///
    /// When the kernel does not let them be caught.
    pub fn new() -> Result<Interrupt, LabError> {
        let signal = Arc::new(AtomicUsize::new(0));
        for one in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let number = one as i32;
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)
                .map_err(|cause| LabError::Start { program: format!("catching {one}"), cause })?;
        }
        Ok(Interrupt { signal })
    }

    /// # Errors
    ///
    /// When a signal came.
    pub fn check(&self) -> Result<(), LabError> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            number => {
                let signal = Signal::try_from(number as i32).unwrap_or(Signal::SIGTERM);
                Err(LabError::Interrupted(signal))
            }
        }
    }

    /// Waits until `condition` has an answer.
    ///
    /// # Errors
    ///
    /// When it has none within `bound`, fails, or a signal comes; `said` is then asked what may tell why.
    pub fn wait_for<T>(
        &self,
        what: &str,
        bound: Duration,
        said: impl Fn() -> String,
        mut condition: impl FnMut() -> Result<Option<T>, LabError>,
    ) -> Result<T, LabError> {
        let end = Instant::now() + bound;
        loop {
            self.check()?;
            if let Some(answer) = condition()? {
                return Ok(answer);
            }
            if Instant::now() >= end {
                return Err(LabError::Waited { what: what.into(), bound, said: said() });
            }
            thread::sleep(LOOK);
        }
    }
}
