//! A page in Prometheus' text format whose samples carry the time at which they were taken.

use std::borrow::Borrow;
use std::fmt::Write;

use jiff::Timestamp;

/// A page that is written family by family.
#[derive(Default)]
pub(super) struct Page(String);

/// Labels of a sample, in the order in which they are shown: written once for all families that have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels(String);

impl Labels {
    /// Labels of these names and values.
    pub(super) fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut text = String::new();
        for (label, value) in pairs {
            let separator = if text.is_empty() { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(text, "{separator}{label}=\"");
            for letter in value.chars() {
                match letter {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    letter => text.push(letter),
                }
            }
            text.push('"');
        }
        Self(text)
    }

    /// These labels and then those.
    pub(super) fn then(mut self, after: &Self) -> Self {
        if !self.0.is_empty() && !after.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&after.0);
        self
    }
}

impl Page {
    /// One family; one without samples is left out.
    pub(super) fn family<L: Borrow<Labels>>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        at: Option<Timestamp>,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let Labels(labels) = labels.borrow();
            let (begin, end) = if labels.is_empty() { ("", "") } else { ("{", "}") };
            let _ = write!(self.0, "{name}{begin}{labels}{end} {value}");
            if let Some(at) = at {
                let _ = write!(self.0, " {}", at.as_millisecond());
            }
            self.0.push('\n');
        }
    }

    /// The page.
    pub(super) fn text(self) -> String {
        self.0
    }
}

/// Nanoseconds as seconds.
pub(super) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_labels_and_times() {
        let mut page = Page::default();
        let at = Timestamp::from_millisecond(1234).ok();
        let labels = Labels::new([("x", "a\"b\\c\nd")]).then(&Labels::default()).then(&Labels::new([("y", "")]));
        page.family(("a", "gauge", "Help."), at, [(&labels, 1.5), (&Labels::default(), 2.0)]);
        page.family::<Labels>(("b", "gauge", "Help."), None, []);
        page.family(("c", "counter", "Help."), None, [(Labels::default().then(&labels), 1e12)]);
        let expected = "# HELP a Help.\n# TYPE a gauge\na{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 1.5 1234\na 2 1234\n\
                        # HELP c Help.\n# TYPE c counter\nc{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 1000000000000\n";
        assert_eq!(page.text(), expected);
    }
}
