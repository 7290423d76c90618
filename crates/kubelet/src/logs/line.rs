//! One line of a container's log, in the format of the Container Runtime Interface, and which lines a reader wants. Pure.

use jiff::Timestamp;

/// What a reader of a log asks for; as in `PodLogOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with what the container writes from now on.
    pub follow: bool,
    /// Of the container before the present one.
    pub previous: bool,
    /// Only the last so many lines.
    pub tail: Option<u64>,
    /// Only what was written since then.
    pub since: Option<Timestamp>,
    /// Each line with its time.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit: Option<u64>,
    /// `Stdout` or `Stderr`; both when none.
    pub stream: Option<String>,
}

/// A line without its end: time, stream, whether it ends here, text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// As written.
    pub time: &'a str,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    /// It goes on with the next one.
    pub partial: bool,
    /// What the container wrote.
    pub text: &'a [u8],
}

impl<'a> Line<'a> {
    /// Parses a line; none when it is none.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let mut word = || std::str::from_utf8(parts.next()?).ok();
        let (time, stream, tag) = (word()?, word()?, word()?);
        let partial = tag.split(':').next() == Some("P");
        Some(Self { time, stream, partial, text: parts.next()? })
    }
}

/// Turns log lines into what a reader sees.
pub struct Filter {
    options: LogOptions,
    left: u64,
    /// The reader is in the middle of a line, whose time it has.
    within: bool,
}

impl Filter {
    /// For these options.
    pub fn new(options: LogOptions) -> Self {
        let left = options.limit.unwrap_or(u64::MAX);
        Self { options, left, within: false }
    }

    /// Whether the reader has all that it asked for.
    pub fn full(&self) -> bool {
        self.left == 0
    }

    /// Adds what the reader sees of `line` to `out`.
    pub fn push(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(line) = Line::parse(line) else { return };
        if self.options.stream.as_deref().is_some_and(|stream| stream != "All" && !stream.eq_ignore_ascii_case(line.stream)) {
            return;
        }
        if self.options.since.is_some_and(|since| line.time.parse::<Timestamp>().is_ok_and(|time| time < since)) {
            return;
        }
        let begun = out.len();
        if self.options.timestamps && !self.within {
            out.extend_from_slice(line.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.within = line.partial;
        let added = (out.len() - begun) as u64;
        if added > self.left {
            out.truncate(begun + usize::try_from(self.left).unwrap_or(usize::MAX));
        }
        self.left = self.left.saturating_sub(added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr P tw\n2026-01-01T00:00:03Z stderr F o\nbroken\n2026-01-01T00:00:04Z stdout F \n";

    #[test]
    fn noise_is_skipped() {
        // A container writes what it likes, but not the prefixes: those come from a disk that may be damaged.
        let mut seed = 5_u64;
        let mut next = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        for _ in 0..5000 {
            let mut bytes = LOG.as_bytes().to_vec();
            for _ in 0..=next() % 6 {
                let at = next() % bytes.len();
                bytes[at] = next() as u8;
            }
            let limit = next() as u64 % 20;
            let mut filter = Filter::new(LogOptions { limit: Some(limit), timestamps: true, ..LogOptions::default() });
            let mut out = Vec::new();
            bytes.split(|byte| *byte == b'\n').for_each(|line| filter.push(line, &mut out));
            assert!(out.len() as u64 <= limit);
        }
    }

    #[track_caller]
    fn check(options: LogOptions, expected: &str) {
        let mut filter = Filter::new(options);
        let mut out = Vec::new();
        LOG.lines().for_each(|line| filter.push(line.as_bytes(), &mut out));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn filters() {
        let options = LogOptions::default;
        check(options(), "one\ntwo\n\n");
        let timed = "2026-01-01T00:00:01Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:04Z \n";
        check(LogOptions { timestamps: true, ..options() }, timed);
        check(LogOptions { limit: Some(5), ..options() }, "one\nt");
        check(LogOptions { limit: Some(0), ..options() }, "");
        check(LogOptions { since: "2026-01-01T00:00:03Z".parse().ok(), ..options() }, "o\n\n");
        check(LogOptions { stream: Some("Stdout".to_owned()), ..options() }, "one\n\n");
    }
}
