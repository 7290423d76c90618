//! Reads pages in Prometheus' text format or OpenMetrics. What cannot be read is left out: a page of somebody else's program is
//! as good as it is.

/// One line of a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample<'a> {
    /// Name of the metric.
    pub name: &'a str,
    /// Labels in the order of the page.
    pub labels: Vec<(&'a str, String)>,
    /// The value.
    pub value: f64,
    /// Milliseconds since the epoch at which it was taken, where the page says so.
    pub at: Option<i64>,
}

impl Sample<'_> {
    /// The value of a label, empty when there is none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}

/// The samples of a page.
pub fn samples(page: &str) -> impl Iterator<Item = Sample<'_>> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
}

/// The families that the page calls counters, by the name that it gives them.
pub fn counters(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.trim_end().strip_suffix(" counter"))
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim();
    let end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let mut words = rest.split_whitespace();
    let value = words.next()?.parse().ok()?;
    // OpenMetrics writes seconds with a fraction, and may go on with an exemplar.
    let time = |word: &str| match word.contains('.') {
        true => word.parse::<f64>().ok().map(|seconds| (seconds * 1000.0) as i64),
        false => word.parse().ok(),
    };
    Some(Sample { name, labels, value, at: words.next().and_then(time) }).filter(|sample| !sample.name.is_empty())
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once('=')?;
        let quoted = quoted.trim_start().strip_prefix('"')?;
        let (value, after) = text(quoted)?;
        labels.push((name.trim(), value));
        rest = after;
    }
}

/// A text up to its closing quote, and what follows it.
fn text(quoted: &str) -> Option<(String, &str)> {
    let (mut value, mut chars) = (String::new(), quoted.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Name, labels, value and time of a sample.
    type Shown<'a> = (&'a str, &'a [(&'a str, &'a str)], f64, Option<i64>);

    #[track_caller]
    fn check(line: &str, expected: Option<Shown<'_>>) {
        let sample = samples(line).next();
        let shown = sample.as_ref().map(|sample| {
            let labels: Vec<(&str, &str)> = sample.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
            (sample.name, labels, sample.value, sample.at)
        });
        assert_eq!(shown, expected.map(|(name, labels, value, at)| (name, labels.to_vec(), value, at)), "{line}");
    }

    #[test]
    fn lines() {
        check("a 1", Some(("a", &[], 1.0, None)));
        check("a{} 1.5e3 1234", Some(("a", &[], 1500.0, Some(1234))));
        check("a{x=\"1\",y=\"b \\\"c\\\" \\\\ }\\n\",} 2", Some(("a", &[("x", "1"), ("y", "b \"c\" \\ }\n")], 2.0, None)));
        check("a_total{x=\"1\"} 2 1.5 # {trace=\"t\"} 1", Some(("a_total", &[("x", "1")], 2.0, Some(1500))));
        check("a +Inf", Some(("a", &[], f64::INFINITY, None)));
        for broken in ["", "# TYPE a counter", "a", "a{x=\"1 2", "a{x} 1", "a one", "{x=\"1\"} 1"] {
            check(broken, None);
        }
    }

    #[test]
    fn what_a_page_calls_a_counter() {
        let page = "# HELP a A.\n# TYPE a counter\na 1\n# TYPE b gauge\nb 2\n# TYPE c_total counter\n";
        assert_eq!(counters(page).collect::<Vec<_>>(), ["a", "c_total"]);
        assert_eq!(samples(page).count(), 2);
        assert_eq!(samples("a{x=\"y\"} 1").next().unwrap().label("x"), "y");
    }
}
