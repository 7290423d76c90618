//! A page in Prometheus' text format whose samples carry the time at which they were taken.

use std::fmt::Write;

use jiff::Timestamp;

/// A page that is written family by family.
#[derive(Default)]
pub(super) struct Page(String);

/// Labels of a sample, in the order in which they are shown.
pub(super) type Labels<'a> = Vec<(&'a str, &'a str)>;

impl Page {
    /// One family; one without samples is left out.
    pub(super) fn family<'a>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        at: Option<Timestamp>,
        samples: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            self.0.push_str(name);
            for (index, (label, value)) in labels.iter().enumerate() {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = write!(self.0, "{}{label}=\"{value}\"", if index == 0 { '{' } else { ',' });
            }
            let end = if labels.is_empty() { "" } else { "}" };
            let _ = write!(self.0, "{end} {value}");
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
        page.family(("a", "gauge", "Help."), at, [(vec![("x", "a\"b"), ("y", "")], 1.5), (vec![], 2.0)]);
        page.family(("b", "gauge", "Help."), None, []);
        page.family(("c", "counter", "Help."), None, [(vec![], 1e12)]);
        let expected = "# HELP a Help.\n# TYPE a gauge\na{x=\"a\\\"b\",y=\"\"} 1.5 1234\na 2 1234\n\
                        # HELP c Help.\n# TYPE c counter\nc 1000000000000\n";
        assert_eq!(page.text(), expected);
    }
}
