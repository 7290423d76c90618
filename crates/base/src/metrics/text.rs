//! From OpenMetrics to Prometheus' text format 0.0.4, which differs in names of counters and in how numbers are written.

use std::collections::HashSet;
use std::fmt::Write;

/// The same page in the older format. The samples of `bare` counters lose the `_total` that OpenMetrics demands.
pub(super) fn of_openmetrics(page: &str, bare: &HashSet<&'static str>) -> String {
    let mut out = String::with_capacity(page.len());
    let mut help = "";
    // The samples of this family are renamed.
    let mut renamed = None;
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            renamed = (kind == "counter" && bare.contains(name)).then_some(name);
            let total = if kind == "counter" && renamed.is_none() { "_total" } else { "" };
            let kind = if kind == "unknown" { "untyped" } else { kind };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP {name}{total} {help}\n# TYPE {name}{total} {kind}");
        } else if !line.starts_with('#') {
            sample(&mut out, line, renamed);
        }
    }
    out
}

fn sample(out: &mut String, line: &str, renamed: Option<&str>) {
    let mut rest = line;
    if let Some(after) = renamed.and_then(|name| line.strip_prefix(name)?.strip_prefix("_total")) {
        out.push_str(&line[..line.len() - after.len() - "_total".len()]);
        rest = after;
    }
    // The bound of a bucket is a label: what selects by its text expects it as Go's library writes numbers.
    const BOUND: &str = "le=\"";
    let bound =
        rest.find(BOUND).map(|at| at + BOUND.len()).filter(|at| matches!(rest.as_bytes()[at - BOUND.len() - 1], b'{' | b','));
    if let Some((start, end)) = bound.and_then(|start| Some((start, start + rest[start..].find('"')?)))
        && let Ok(value) = rest[start..end].parse::<f64>()
        && value.is_finite()
    {
        out.push_str(&rest[..start]);
        out.push_str(&number(value));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out.push('\n');
}

/// A number in the shortest form of Go's `%g`: with an exponent below 1e-4 and from 1e6 on.
fn number(value: f64) -> String {
    let scientific = format!("{value:e}");
    match scientific.split_once('e').and_then(|(mantissa, exponent)| Some((mantissa, exponent.parse::<i32>().ok()?))) {
        Some((mantissa, exponent)) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_those_of_the_older_format() {
        let check = |open: &str, expected: &str| assert_eq!(of_openmetrics(open, &HashSet::from(["attempts"])), expected);
        check(
            "# HELP requests All.\n# TYPE requests counter\nrequests_total{code=\"200\"} 3\n# EOF\n",
            "# HELP requests_total All.\n# TYPE requests_total counter\nrequests_total{code=\"200\"} 3\n",
        );
        check(
            "# HELP attempts All.\n# TYPE attempts counter\nattempts_total{result=\"success\"} 3\nattempts_total 1\n",
            "# HELP attempts All.\n# TYPE attempts counter\nattempts{result=\"success\"} 3\nattempts 1\n",
        );
        check(
            "# HELP took T.\n# TYPE took histogram\n# UNIT took seconds\ntook_sum 1.5\ntook_bucket{le=\"1.0\",a=\"b\"} 1\ntook_bucket{a=\"le=\",le=\"0.005\"} 0\ntook_bucket{le=\"+Inf\"} 2\n",
            "# HELP took T.\n# TYPE took histogram\ntook_sum 1.5\ntook_bucket{le=\"1\",a=\"b\"} 1\ntook_bucket{a=\"le=\",le=\"0.005\"} 0\ntook_bucket{le=\"+Inf\"} 2\n",
        );
        check("# HELP x U.\n# TYPE x unknown\nx 1\n", "# HELP x U.\n# TYPE x untyped\nx 1\n");
    }

    #[test]
    fn bounds_are_written_as_go_writes_them() {
        let check = |value: f64, expected: &str| assert_eq!(number(value), expected);
        check(1.0, "1");
        check(0.005, "0.005");
        check(1.25, "1.25");
        check(100_000.0, "100000");
        check(1_000_000.0, "1e+06");
        check(1_024_000.0, "1.024e+06");
        check(0.0001, "0.0001");
        check(0.000_01, "1e-05");
        check(1e-8, "1e-08");
    }
}
