//! Where whoever ends a run finds the connection of a request that is under way.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One worker's connection. Once cut, it stays so.
#[derive(Default)]
pub(super) struct Line(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Free,
    Busy(TcpStream),
    Cut,
}

impl Line {
    /// Ends the request that is under way, and lets none begin.
    pub(super) fn cut(&self) {
        let mut state = self.state();
        if let State::Busy(stream) = &*state {
            // When it is closed already, that is what was wanted.
            let _ = stream.shutdown(Shutdown::Both);
        }
        *state = State::Cut;
    }

    /// Whether it was.
    pub(super) fn is_cut(&self) -> bool {
        matches!(*self.state(), State::Cut)
    }

    /// Makes a connection the one that is under way.
    ///
    /// # Errors
    ///
    /// When it was cut, or descriptors have run out.
    pub(super) fn hold(&self, stream: &TcpStream) -> io::Result<()> {
        let copy = stream.try_clone()?;
        let mut state = self.state();
        if matches!(*state, State::Cut) {
            return Err(ErrorKind::TimedOut.into());
        }
        *state = State::Busy(copy);
        Ok(())
    }

    /// There is no connection under way any more.
    pub(super) fn release(&self) {
        let mut state = self.state();
        if matches!(*state, State::Busy(_)) {
            *state = State::Free;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A state is set as a whole, so one that a panic left is as good as any.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
