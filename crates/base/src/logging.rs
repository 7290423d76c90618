//! Logs go to standard error: for people on a terminal, as JSON where a machine reads them.

use std::io::{IsTerminal, Stderr, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One human-readable line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The last line could not be written.
static BROKEN: AtomicBool = AtomicBool::new(false);

/// Whether the last line was written.
pub fn works() -> bool {
    !BROKEN.load(Ordering::Relaxed)
}

/// Standard error, of which is remembered whether it takes anything.
struct Checked<W>(W);

impl Default for Checked<Stderr> {
    fn default() -> Self {
        Self(std::io::stderr())
    }
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.0.write(bytes);
        BROKEN.store(written.is_err(), Ordering::Relaxed);
        written
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Installs the process-wide logger. `level` is `error`, `warn`, `info`, `debug` or `trace`, or a list of
/// `target=level` pairs.
pub fn init(format: Format, level: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let quiet = [
        ("fjall", LevelFilter::WARN),
        ("lsm_tree", LevelFilter::WARN),
        ("h2", LevelFilter::WARN),
        ("hyper_util", LevelFilter::WARN),
    ];
    let targets: Targets = level.parse()?;
    let targets = quiet.into_iter().fold(targets, |targets, (name, level)| targets.with_target(name, level));
    let registry = tracing_subscriber::registry().with(targets);
    let ansi = std::io::stderr().is_terminal();
    match format {
        Format::Text => {
            registry.with(tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(Checked::default)).try_init().ok()
        }
        Format::Json => registry.with(tracing_subscriber::fmt::layer().json().with_writer(Checked::default)).try_init().ok(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_cannot_be_written_is_noticed() {
        assert!(Checked(Full).write(b"line").is_err() && !works());
        assert!(Checked(Vec::new()).write(b"line").is_ok() && works());
    }
}
