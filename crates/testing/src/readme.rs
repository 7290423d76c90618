//! READMEs that prove themselves: a reader's session, whose commands are run and whose output is compared.
//!
//! A session is a fenced block of the language `console`. A line after `$ ` is a command, which lines after `> ` continue; what follows is what
//! it prints, errors included. `...` stands for any text within a line and, alone on a line, for any number of lines; blanks count as one, so
//! that a table may be as wide as it likes. Every command has to succeed. Blocks of other languages are for the eye.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kubectl::{self, Background};
use crate::wait::PATIENCE;
use crate::{Cluster, Outcome};

/// A heading and the commands below it.
#[derive(Debug, PartialEq, Eq)]
struct Section {
    heading: String,
    steps: Vec<Step>,
}

/// A command and what it prints.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    /// Where it stands, from 1.
    line: usize,
    command: String,
    printed: Vec<String>,
}

/// Sections of a README with sessions in them.
fn parse(text: &str) -> Vec<Section> {
    let mut sections = vec![Section { heading: String::new(), steps: Vec::new() }];
    let mut fence = None;
    for (index, line) in text.lines().enumerate() {
        let section = sections.last_mut().expect("the one before the first heading");
        match (fence, line.strip_prefix("```")) {
            (None, Some(language)) => fence = Some(language),
            (Some(_), Some(_)) => fence = None,
            (None, None) => {
                if let Some(heading) = line.strip_prefix('#') {
                    let heading = heading.trim_start_matches('#').trim().to_owned();
                    sections.push(Section { heading, steps: Vec::new() });
                }
            }
            (Some("console"), None) => session(section, index + 1, line),
            (Some(_), None) => {}
        }
    }
    sections.retain(|section| !section.steps.is_empty());
    sections
}

/// A line of a session.
fn session(section: &mut Section, number: usize, line: &str) {
    if let Some(command) = line.strip_prefix("$ ") {
        section.steps.push(Step { line: number, command: command.to_owned(), printed: Vec::new() });
        return;
    }
    let step = section.steps.last_mut().unwrap_or_else(|| panic!("line {number}: output before any command"));
    match line.strip_prefix("> ") {
        Some(more) if step.printed.is_empty() => step.command += &format!("\n{more}"),
        _ => step.printed.push(line.to_owned()),
    }
}

/// Whether this line was.
fn line(expected: &str, printed: &str) -> bool {
    let [expected, printed] = [expected, printed].map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    let parts: Vec<&str> = expected.split("...").collect();
    let [first, middle @ .., last] = &parts[..] else { return expected == printed };
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Whether kubectl says it about itself, as when it ends a watch in the middle of an event: `I1127 21:44:46.058680 ...`.
fn is_log(line: &str) -> bool {
    let mut letters = line.chars();
    letters.next().is_some_and(|level| "IW".contains(level))
        && letters.by_ref().take(4).filter(char::is_ascii_digit).count() == 4
        && letters.next() == Some(' ')
}

/// Whether these lines were expected. Each run of lines between two `...` is taken where it is found first, the last one at the end.
fn matches(expected: &[String], printed: &[String]) -> bool {
    let equal =
        |run: &[String], part: &[String]| run.len() == part.len() && run.iter().zip(part).all(|(run, part)| line(run, part));
    let runs: Vec<&[String]> = expected.split(|line| line.trim() == "...").collect();
    let [first, middle @ .., last] = &runs[..] else { return equal(expected, printed) };
    if printed.len() < first.len() + last.len() || !equal(first, &printed[..first.len()]) {
        return false;
    }
    let (mut rest, end) = printed[first.len()..].split_at(printed.len() - first.len() - last.len());
    for run in middle.iter().filter(|run| !run.is_empty()) {
        let Some(at) = rest.windows(run.len()).position(|part| equal(run, part)) else { return false };
        rest = &rest[at + run.len()..];
    }
    equal(last, end)
}

/// Somebody who follows a README of `examples/` in one shell, in its directory, with kubectl on the path.
pub struct Reader {
    path: PathBuf,
    sections: std::vec::IntoIter<Section>,
    shell: Background,
    step: PathBuf,
}

/// What the shell prints after a command, with the exit code.
const END: &str = "--- end of the command:";

impl Reader {
    /// Opens the README of a directory.
    ///
    /// # Panics
    /// When there is none.
    pub fn open(cluster: &Cluster, directory: &Path) -> Self {
        let path = directory.join("README.md");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut command = Command::new("bash");
        let programs = kubectl::program().parent().unwrap().display().to_string();
        let inherited = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{programs}:{inherited}")).env("HOME", cluster.scratch());
        command.env("KUBECONFIG", cluster.kubeconfig()).current_dir(directory);
        let mut shell = Background::spawn(&mut command);
        shell.write("exec 2>&1\n");
        Self { path, sections: parse(&text).into_iter(), shell, step: cluster.scratch().join("step.sh") }
    }

    /// Follows the next section, which has this heading.
    ///
    /// # Panics
    /// When it has another one, a command fails, or prints what is not expected.
    pub fn section(&mut self, heading: &str) {
        let section = self.sections.next().unwrap_or_else(|| panic!("{} has no section {heading:?} left", self.path.display()));
        assert_eq!(section.heading, heading, "the next section of {}", self.path.display());
        self.follow(&section);
    }

    /// Follows all that is left.
    ///
    /// # Panics
    /// As [`Reader::section`].
    pub fn finish(mut self) {
        while let Some(section) = self.sections.next() {
            self.follow(&section);
        }
    }

    fn follow(&mut self, section: &Section) {
        for step in &section.steps {
            let Outcome { code, stdout, .. } = self.run(&step.command);
            let printed: Vec<String> = stdout.lines().filter(|line| !is_log(line)).map(str::to_owned).collect();
            let told = || {
                format!(
                    "{}:{}: {}\n--- expected\n{}\n--- printed",
                    self.path.display(),
                    step.line,
                    step.command,
                    step.printed.join("\n")
                )
            };
            assert_eq!(code, Some(0), "{}\n{stdout}", told());
            assert!(matches(&step.printed, &printed), "{}\n{stdout}", told());
        }
    }

    /// Runs a command in the reader's shell.
    ///
    /// # Panics
    /// When nothing is printed for too long.
    pub fn run(&mut self, command: &str) -> Outcome {
        // From a file, so that no command reads the shell's own input.
        std::fs::write(&self.step, command).unwrap();
        self.shell.write(&format!(". {} </dev/null; printf '\\n%s %s\\n' '{END}' $?\n", self.step.display()));
        let mut lines = Vec::new();
        loop {
            // A command says itself how long it waits, which may be twice the patience of a test.
            let line =
                self.shell.next_line_within(3 * *PATIENCE).unwrap_or_else(|| panic!("the shell ended in {command}: {lines:#?}"));
            if let Some(code) = line.strip_prefix(END) {
                // The line feed before the mark ends a last line without one, or makes an empty one.
                lines.pop_if(|last: &mut String| last.is_empty());
                return Outcome { code: code.trim().parse().ok(), stdout: lines.join("\n"), stderr: String::new() };
            }
            lines.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Title\n```console\n$ a\n$ b \\\n> c\nout\n\n> no command\n```\n## Second\n$ not in a session\n```yaml\n$ neither\n# nor a heading\n```\n\
                        ### Third\n```console\n$ d\n```\n";

    #[test]
    fn what_kubectl_says_about_itself() {
        let check = |line: &str, expected| assert_eq!(is_log(line), expected, "{line}");
        check("I1127 21:44:46.058680    7348 reflector.go:664] \"Warning: watch ended with error\"", true);
        check("W1127 21:44:46.058680    7348 warnings.go:70] old", true);
        check("E1127 21:44:46.058680    7348 memcache.go:265] it failed", false);
        check("I have 1127 pods", false);
        check("W112", false);
    }

    #[test]
    fn sessions_of_a_text() {
        let step = |line, command: &str, printed: &[&str]| Step {
            line,
            command: command.to_owned(),
            printed: printed.iter().map(|line| (*line).to_owned()).collect(),
        };
        let title = vec![step(3, "a", &[]), step(4, "b \\\nc", &["out", "", "> no command"])];
        let expected = vec![
            Section { heading: "Title".into(), steps: title },
            Section { heading: "Third".into(), steps: vec![step(18, "d", &[])] },
        ];
        assert_eq!(parse(TEXT), expected);
    }

    #[test]
    fn what_output_is_expected() {
        let check = |expected: &str, printed: &str, agrees: bool| {
            let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(matches(&lines(expected), &lines(printed)), agrees, "{expected:?} and {printed:?}");
        };
        check("", "", true);
        check("", "more", false);
        check("a b", "a    b ", true);
        check("a b", "ab", false);
        check("web-... 1/1 Running ... s", "web-xyz   1/1   Running   5s", false);
        check("web-... 1/1 Running ...s", "web-xyz   1/1   Running   0   5s", true);
        check("web-...-x", "web-x", false);
        check("...a...b", "xaab", true);
        check("...a...b", "xb", false);
        check("...", "", true);
        check("...", "a\nb", true);
        check("a\n...", "a", true);
        check("a\n...\nc", "a\nb\nb\nc", true);
        check("a\n...\na", "a", false);
        check("a\n...\nb\n...\nc", "a\nx\nb\nc", true);
        check("a\n...\nb\n...\nc", "a\nx\nc", false);
        check("a\nb", "b\na", false);
    }
}
