//! Length of files and functions and repeated lines: reported, and held to the limits below.

use std::collections::HashMap;

use super::source::File;

/// Lines of the median file.
const FILE_MEDIAN: usize = 200;
/// Lines of the 95th percentile of functions.
const FUNCTION_95TH: usize = 50;
/// Share of lines that stand somewhere else too, per cent.
const REPEATED: usize = 15;
/// So many lines in a row that are the same count as repeated.
const RUN: usize = 5;

/// Prints the figures; complains where a limit is passed.
pub fn check(files: &[File]) -> Vec<String> {
    let texts: Vec<_> = files.iter().map(File::production).filter(|text| !text.trim().is_empty()).collect();
    let lengths = sorted(texts.iter().map(|text| text.lines().count()).collect());
    let functions = sorted(texts.iter().flat_map(|text| functions(text)).collect());
    let repeated = repeated(&texts);
    println!(
        "{} files, {} lines; file median {} / 95th percentile {}; {} functions, median {} / 95th percentile {}; repeated lines {repeated} %",
        lengths.len(),
        lengths.iter().sum::<usize>(),
        percentile(&lengths, 50),
        percentile(&lengths, 95),
        functions.len(),
        percentile(&functions, 50),
        percentile(&functions, 95),
    );
    let limits = [
        ("the median file has", percentile(&lengths, 50), FILE_MEDIAN, "lines"),
        ("the 95th percentile of functions has", percentile(&functions, 95), FUNCTION_95TH, "lines"),
        ("repeated lines make", repeated, REPEATED, "per cent"),
    ];
    let passed = limits.iter().filter(|(_, value, limit, _)| value >= limit);
    passed.map(|(what, value, limit, unit)| format!("{what} {value} {unit}, the limit is {limit}")).collect()
}

fn sorted(mut values: Vec<usize>) -> Vec<usize> {
    values.sort_unstable();
    values
}

fn percentile(sorted: &[usize], percent: usize) -> usize {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}

/// Length of each function. rustfmt puts the closing brace at the indentation of the first line.
fn functions(text: &str) -> Vec<usize> {
    let lines: Vec<_> = text.lines().collect();
    let mut lengths = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let words = ["fn ", "pub fn ", "async fn ", "pub async fn ", "const fn ", "pub const fn ", "unsafe fn "];
        let head = code.strip_prefix("pub(crate) ").or(code.strip_prefix("pub(super) ")).unwrap_or(code);
        if !words.iter().any(|word| head.starts_with(word)) {
            continue;
        }
        lengths.extend(length(&lines[start..], line.len() - code.len()));
    }
    lengths
}

/// Lines from the head of a function, at this indentation, to its end; none for a declaration without a body.
fn length(lines: &[&str], indent: usize) -> Option<usize> {
    let ends = |line: &&str| line.len() > indent && !line[indent..].starts_with(' ') && line.ends_with(['}', ';']);
    let last = lines.iter().position(ends)?;
    lines[last].ends_with('}').then_some(last + 1)
}

/// Share of the lines that lie in a run of [`RUN`] lines which stands elsewhere too, per cent.
fn repeated(texts: &[&str]) -> usize {
    let plain = |line: &&str| line.len() > 3 && !line.starts_with("//") && !line.starts_with("use ");
    let files: Vec<Vec<&str>> = texts.iter().map(|text| text.lines().map(str::trim).filter(plain).collect()).collect();
    let mut runs = HashMap::<&[&str], usize>::new();
    for run in files.iter().flat_map(|lines| lines.windows(RUN)) {
        *runs.entry(run).or_default() += 1;
    }
    let mut count = 0;
    for lines in &files {
        let mut marked = vec![false; lines.len()];
        for (start, run) in lines.windows(RUN).enumerate().filter(|(_, run)| runs[run] > 1) {
            marked[start..start + run.len()].fill(true);
        }
        count += marked.iter().filter(|marked| **marked).count();
    }
    count * 100 / files.iter().map(Vec::len).sum::<usize>().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn function_lengths() {
        let check = |text: &str, expected: &[usize]| assert_eq!(functions(text), expected, "{text}");
        check("fn a() {\n    b();\n}\n", &[3]);
        check("fn a() {}\nfn c() { d() }\n", &[1, 1]);
        check("impl A {\n    pub fn b(\n        c: u8,\n    ) -> u8 {\n        c\n    }\n}\n", &[5]);
        check("trait A {\n    fn b();\n}\n", &[]);
    }

    #[test]
    fn repeated_share() {
        let text = "alpha\nbravo\ncharlie\ndelta\necho_\n";
        assert_eq!(repeated(&[text, text]), 100);
        assert_eq!(repeated(&[text]), 0);
    }
}
