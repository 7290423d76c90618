//! Logs go to standard error: for people on a terminal, as JSON where a machine reads them.

use std::fmt;
use std::io::{IsTerminal, Stderr, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
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

/// Fields on one line: words of clients are in them, which must neither begin a record of their own nor speak to a terminal.
#[derive(Default)]
struct OneLine(DefaultFields);

impl<'w> FormatFields<'w> for OneLine {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut text = String::new();
        self.0.format_fields(Writer::new(&mut text), fields)?;
        text.chars().try_for_each(|c| match is_of_lines(c) {
            true => write!(writer, "{}", c.escape_default()),
            false => writer.write_char(c),
        })
    }
}

/// Whether a character is none of the text but says how lines are shown: a control character, a separator of lines, or one that turns the direction
/// of what follows (Unicode Standard Annex 9).
fn is_of_lines(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Installs the process-wide logger. `level` is `error`, `warn`, `info`, `debug` or `trace`, or a list of
/// `target=level` pairs.
pub fn init(format: Format, level: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let quiet = [
        ("fjall", LevelFilter::WARN),
        ("lsm_tree", LevelFilter::WARN),
        ("h2", LevelFilter::WARN),
        ("hyper_util", LevelFilter::WARN),
        // It warns with the whole of an answer that cannot be parsed; who asked tells of the failure.
        ("kube_client", LevelFilter::ERROR),
    ];
    let targets: Targets = level.parse()?;
    let targets = quiet.into_iter().fold(targets, |targets, (name, level)| targets.with_target(name, level));
    let registry = tracing_subscriber::registry().with(targets);
    let ansi = std::io::stderr().is_terminal();
    match format {
        Format::Text => {
            let layer = tracing_subscriber::fmt::layer().with_ansi(ansi).fmt_fields(OneLine::default());
            registry.with(layer.with_writer(Checked::default)).try_init().ok()
        }
        Format::Json => registry.with(tracing_subscriber::fmt::layer().json().with_writer(Checked::default)).try_init().ok(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
    fn nobody_writes_lines_of_their_own() {
        let (mut lines, writer) = std::io::pipe().unwrap();
        let layer = tracing_subscriber::fmt::layer().without_time().with_ansi(false).fmt_fields(OneLine::default());
        let subscriber = tracing_subscriber::registry().with(layer.with_writer(std::sync::Arc::new(writer)));
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("pod", name = "a\nb").entered();
            tracing::warn!(error = %"no x\nERROR forged\u{1b}[2J\0\u{202e}\u{2028}", "of {}, grün", "a\rb");
        });
        let mut text = String::new();
        std::io::Read::read_to_string(&mut lines, &mut text).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(r"of a\rb, grün error=no x\nERROR forged\u{1b}[2J\u{0}\u{202e}\u{2028}"), "{text}");
    }

    #[test]
    fn what_cannot_be_written_is_noticed() {
        assert!(Checked(Full).write(b"line").is_err() && !works());
        assert!(Checked(Vec::new()).write(b"line").is_ok() && works());
    }
}
