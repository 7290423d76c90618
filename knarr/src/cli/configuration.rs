//! `--config`: options of `knarr server` and `knarr agent` in a file, by their names without dashes before them. What the command line says counts
//! in the place of what the file says.

use std::ffi::OsString;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Command};
use serde_json::Value;

/// Name of the option.
const OPTION: &str = "config";

/// The command line with what the file of its `--config` says, where it names one.
///
/// # Errors
/// The file cannot be read, or has what is no option.
pub(super) fn complete(command: &Command, args: Vec<OsString>) -> Result<Vec<OsString>, String> {
    // What is missing may be in the file, and what is wrong is told when all is there.
    let Ok(matches) = command.clone().ignore_errors(true).try_get_matches_from(&args) else { return Ok(args) };
    let Some((name, matches)) = matches.subcommand() else { return Ok(args) };
    let Some(subcommand) = command.find_subcommand(name) else { return Ok(args) };
    if !subcommand.get_arguments().any(|argument| argument.get_id() == OPTION) {
        return Ok(args);
    }
    let Some(path) = matches.get_one::<std::path::PathBuf>(OPTION) else { return Ok(args) };
    let given = |argument: &Arg| matches.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine);
    let more = read(path, subcommand, &given).map_err(|why| format!("--config {}: {why}", path.display()))?;
    Ok(args.into_iter().chain(more).collect())
}

/// The options of the file but those that are `given` already.
fn read(path: &Path, command: &Command, given: &dyn Fn(&Arg) -> bool) -> Result<Vec<OsString>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    options(&text, command, given)
}

fn options(text: &str, command: &Command, given: &dyn Fn(&Arg) -> bool) -> Result<Vec<OsString>, String> {
    let (file, duplicates) = apimachinery::yaml::parse(text).map_err(|error| error.to_string())?;
    if let Some(duplicate) = duplicates.first() {
        return Err(duplicate.clone());
    }
    let options = match file {
        Value::Object(options) => options,
        Value::Null => return Ok(Vec::new()),
        _ => return Err("expected options with their values, such as `port: 7443`".to_owned()),
    };
    let mut args = Vec::new();
    for (name, value) in &options {
        let known = |argument: &&Arg| argument.get_long() == Some(name) && argument.get_id() != OPTION;
        let argument = command.get_arguments().find(known).ok_or_else(|| format!("there is no option {name:?}"))?;
        let words = words(argument, value).map_err(|why| format!("{name}: {why}"))?;
        if !given(argument) {
            args.extend(words.into_iter().map(|word| OsString::from(format!("--{name}{word}"))));
        }
    }
    Ok(args)
}

/// What follows the option's name, each time that it is to stand on the command line.
fn words(argument: &Arg, value: &Value) -> Result<Vec<String>, String> {
    let scalar = |value: &Value| match value {
        Value::String(text) => Ok(format!("={text}")),
        Value::Number(number) => Ok(format!("={number}")),
        Value::Bool(flag) => Ok(format!("={flag}")),
        _ => Err("expected a text, a number, true or false".to_owned()),
    };
    match (argument.get_action(), value) {
        (ArgAction::SetTrue, Value::Bool(flag)) => Ok(flag.then(String::new).into_iter().collect()),
        (ArgAction::SetTrue, _) => Err("expected true or false".to_owned()),
        (ArgAction::Append, Value::Array(values)) => values.iter().map(scalar).collect(),
        (_, Value::Array(_)) => Err("expected one value".to_owned()),
        (_, value) => Ok(vec![scalar(value)?]),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Cli, Command as Parsed};
    use super::*;

    fn read_with(text: &str, args: &[&str]) -> Result<Box<super::super::Server>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut all: Vec<OsString> = vec!["knarr".into(), "server".into(), "--config".into(), file.path().into()];
        all.extend(args.iter().map(OsString::from));
        let cli = Cli::of(all).map_err(|error| error.to_string())?;
        match cli.command {
            Parsed::Server(options) => Ok(options),
            _ => panic!("another command"),
        }
    }

    #[test]
    fn options_of_a_file_count_like_those_of_the_command_line() {
        let text = "port: 7443\ntls-san: [a, b]\nno-agent: true\nanonymous-auth: false\nlabel:\n- x=y\n- z=\ncluster-cidr: 10.44.0.0/16\nlog-level: debug\n";
        let options = read_with(text, &[]).unwrap();
        assert_eq!((options.port, options.no_agent, options.tls_san.join(" ")), (7443, true, "a b".to_owned()));
        assert_eq!(options.node.labels, [("x".to_owned(), "y".to_owned()), ("z".to_owned(), String::new())]);
        assert_eq!(options.cluster_cidrs[0].to_string(), "10.44.0.0/16");
        let flag = |name: &str| options.node.flags.get(name).cloned().unwrap_or_default();
        assert_eq!([flag("log-level"), flag("anonymous-auth"), flag("port")], ["debug", "false", "7443"]);
    }

    #[test]
    fn the_command_line_counts_in_the_place_of_the_file() {
        let options = read_with("port: 7443\ntls-san: [a, b]\n", &["--port", "8443", "--tls-san", "c"]).unwrap();
        assert_eq!((options.port, options.tls_san.join(" ")), (8443, "c".to_owned()));
        assert!(!read_with("no-agent: false\n", &[]).unwrap().no_agent);
        assert_eq!(read_with("", &[]).unwrap().port, 6443);
    }

    #[test]
    fn what_is_no_option_is_refused() {
        let check = |text: &str, why: &str| {
            let error = read_with(text, &[]).err().unwrap_or_default();
            assert!(error.contains(why), "{text}: {error}");
        };
        check("prot: 1", "there is no option \"prot\"");
        check("config: other", "there is no option \"config\"");
        check("help: true", "help");
        check("port: [1, 2]", "port: expected one value");
        check("no-agent: maybe", "no-agent: expected true or false");
        check("tls-san: {a: b}", "tls-san: expected a text");
        check("port: many", "invalid value 'many' for '--port");
        check("- port", "expected options with their values");
        check("port: 1\nport: 2", "port");
        check("{", "yaml");
        assert!(Cli::of(["knarr", "server", "--config", "/nonexistent"].map(OsString::from).to_vec()).is_err());
    }

    /// An option that must be there may be there by the file.
    #[test]
    fn what_is_required_may_stand_in_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "server: https://s:6443\n").unwrap();
        let args = |more: &[&str]| ["knarr", "agent"].iter().chain(more).map(OsString::from).collect::<Vec<_>>();
        let path = file.path().to_str().unwrap();
        assert!(
            matches!(Cli::of(args(&["--config", path])).unwrap().command, Parsed::Agent(agent) if agent.server == "https://s:6443")
        );
        assert!(Cli::of(args(&[])).is_err());
    }
}
