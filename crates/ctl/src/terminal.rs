//! The terminal that a command runs at: raw while another program has it, and as it was afterwards.

use std::io::IsTerminal;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Error, Result};

/// Whether somebody types.
pub(crate) fn is_typed() -> bool {
    std::io::stdin().is_terminal()
}

/// The terminal in raw mode: keys go on as they are, also those that would send signals. Dropping it makes the terminal what it was.
pub(crate) struct Raw(Termios);

impl Raw {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Standard input is none.
    pub(crate) fn enter() -> Result<Self> {
        let failed = |error: rustix::io::Errno| Error::io("the terminal", error.into());
        let before = tcgetattr(std::io::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Columns and rows.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdin()).ok()?;
    Some((size.ws_col, size.ws_row)).filter(|(columns, rows)| *columns > 0 && *rows > 0)
}

/// Tells of each change of the size.
pub(crate) fn resizes() -> Result<Signal> {
    signal(SignalKind::window_change()).map_err(|error| Error::io("signals", error))
}

/// The signals that end a program, while it has a terminal to give back.
pub(crate) struct Ends([Signal; 4]);

impl Ends {
    pub(crate) fn new() -> Result<Self> {
        let of = |kind: SignalKind| signal(kind).map_err(|error| Error::io("signals", error));
        let kinds = [SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate(), SignalKind::hangup()];
        let [a, b, c, d] = kinds.map(of);
        Ok(Self([a?, b?, c?, d?]))
    }

    /// The number of the signal that came.
    pub(crate) async fn wait(&mut self) -> u8 {
        let [interrupt, quit, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => 2,
            _ = quit.recv() => 3,
            _ = terminate.recv() => 15,
            _ = hangup.recv() => 1,
        }
    }
}
