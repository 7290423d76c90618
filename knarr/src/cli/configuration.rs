//! `--config`: options of `knarr server` and `knarr agent` in a file, by their names without dashes before them. What the command line says counts
//! in the place of what the file says. Other commands take from such a file where everything is kept.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Args, Command};
use serde_json::Value;

/// Name of the option.
const OPTION: &str = "config";
/// The commands whose options such files have.
const RUNNING: [&str; 2] = ["server", "agent"];
/// What the other commands take from them.
const SHARED: &str = "data-dir";

/// The file of options of the server or agent that a command is about.
#[derive(Args, Clone)]
pub(crate) struct OptionsFile {
    /// The file of options that the server or agent is started with: its `data-dir` counts unless the command line says one.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

/// A command line, with what a file has added to it.
pub(super) struct Completed {
    pub(super) args: Vec<OsString>,
    /// The file, and the names of its options that count.
    file: Option<(PathBuf, Vec<String>)>,
}

impl Completed {
    /// An error of this command line: one of an option of the file is told as the file's, and without what the command line could be.
    pub(super) fn explain(&self, error: clap::Error) -> clap::Error {
        let Some((path, names)) = &self.file else { return error };
        let Some(ContextValue::String(wrong)) = error.get(ContextKind::InvalidArg) else { return error };
        let wrong = wrong.split([' ', '=']).next().unwrap_or_default();
        if !names.iter().any(|name| wrong.strip_prefix("--") == Some(name)) {
            return error;
        }
        let text = error.render().to_string();
        let why = text.split("\n\n").next().unwrap_or_default();
        refusal(path, why.strip_prefix("error: ").unwrap_or(why))
    }
}

fn refusal(path: &Path, why: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, format!("--config {}: {why}\n", path.display()))
}

/// The command line with what the file of its `--config` says, where it names one.
///
/// # Errors
/// The file cannot be read, or has what is no option.
pub(super) fn complete(command: &Command, args: Vec<OsString>) -> Result<Completed, clap::Error> {
    let alone = |args| Ok(Completed { args, file: None });
    // What is missing may be in the file, and what is wrong is told when all is there.
    let Ok(matches) = command.clone().ignore_errors(true).try_get_matches_from(&args) else { return alone(args) };
    let Some((name, matches)) = matches.subcommand() else { return alone(args) };
    let Some(subcommand) = command.find_subcommand(name) else { return alone(args) };
    if !subcommand.get_arguments().any(|argument| argument.get_id() == OPTION) {
        return alone(args);
    }
    let Some(path) = matches.get_one::<PathBuf>(OPTION) else { return alone(args) };
    let text = std::fs::read_to_string(path).map_err(|error| refusal(path, &error.to_string()))?;
    let running: Vec<&Command> = match RUNNING.contains(&name) {
        true => vec![subcommand],
        false => RUNNING.iter().filter_map(|name| command.find_subcommand(name)).collect(),
    };
    let counts = |argument: &Arg| {
        let given = matches.try_contains_id(argument.get_id().as_str()).is_ok()
            && matches.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine);
        !given && (RUNNING.contains(&name) || argument.get_long() == Some(SHARED))
    };
    let more = options(&text, &running, &counts).map_err(|why| refusal(path, &why))?;
    let (names, words): (Vec<_>, Vec<_>) = more.into_iter().unzip();
    Ok(Completed { args: args.into_iter().chain(words).collect(), file: Some((path.clone(), names)) })
}

/// The options of a file that count, with their names. It may have those of any of the commands.
fn options(text: &str, commands: &[&Command], counts: &dyn Fn(&Arg) -> bool) -> Result<Vec<(String, OsString)>, String> {
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
        let argument = commands.iter().find_map(|command| command.get_arguments().find(known));
        let argument = argument.ok_or_else(|| format!("there is no option {name:?}"))?;
        let words = words(argument, value).map_err(|why| format!("{name}: {why}"))?;
        if counts(argument) {
            args.extend(words.into_iter().map(|word| (name.clone(), OsString::from(format!("--{name}{word}")))));
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

    /// An error of the file names the file, and does not show how the command is used.
    #[test]
    fn errors_of_a_file_are_told_as_its_own() {
        let check = |text: &str, args: &[&str], why: Result<&str, &str>| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let path = file.path().to_str().unwrap();
            let all = args.iter().chain(&["--config", path]).map(OsString::from).collect();
            let told = Cli::of(all).err().unwrap().render().to_string();
            match why {
                Ok(why) => assert_eq!(told, format!("error: --config {path}: {why}\n")),
                Err(usage) => assert!(told.contains(usage) && !told.contains(path), "{told}"),
            }
        };
        let server = ["knarr", "server"];
        check("prot: 1", &server, Ok("there is no option \"prot\""));
        check("port: many", &server, Ok("invalid value 'many' for '--port <PORT>': invalid digit found in string"));
        check(
            "pod-network: x",
            &server,
            Ok("invalid value 'x' for '--pod-network <POD_NETWORK>'\n  [possible values: vxlan, host-gw, wireguard, cni]"),
        );
        check(
            "tls-min-version: x",
            &server,
            Ok("invalid value 'x' for '--tls-min-version <VERSION>': expected VersionTLS12 or VersionTLS13"),
        );
        check("tls-san: [a]", &["knarr", "server", "--port", "many"], Err("For more information"));
        check("port: 7443", &["knarr", "server", "--port", "many"], Err("For more information"));
        check("data-dir: [/a]", &["knarr", "status"], Ok("data-dir: expected one value"));
        check("prot: 1", &["knarr", "status"], Ok("there is no option \"prot\""));
    }

    /// Who starts the server with a file finds it with the same file.
    #[test]
    fn other_commands_take_the_directory_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "data-dir: /srv/knarr\nport: many\nlog-level: debug\nserver: https://s:6443\n").unwrap();
        let path = file.path().to_str().unwrap();
        let check = |args: &[&str], expected: &str| {
            let cli = Cli::of(args.iter().map(|arg| OsString::from(arg.replace("FILE", path))).collect()).unwrap();
            let directory = match &cli.command {
                Parsed::Status(options) => options.data_dir.clone(),
                Parsed::Killall(options) => options.data_dir.clone(),
                Parsed::Token(options) => options.data_dir.clone(),
                Parsed::Certificate(options) => options.data_dir.clone(),
                Parsed::SecretsEncryption(options) => options.data_dir.clone(),
                Parsed::Snapshot(options) => options.data_dir.clone(),
                Parsed::Image(options) => options.data_dir.clone().unwrap_or_default(),
                _ => panic!("{args:?}"),
            };
            assert_eq!((directory.to_str().unwrap(), cli.log_level.as_str()), (expected, "info"), "{args:?}");
        };
        for command in
            ["status", "killall", "token list", "certificate check", "secrets-encryption status", "snapshot save x", "image list"]
        {
            let words: Vec<&str> = ["knarr"].into_iter().chain(command.split(' ')).collect();
            let with = |more: &[&'static str]| words.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();
            check(&with(&["--config", "FILE"]), "/srv/knarr");
            check(&with(&["--config=FILE", "--data-dir", "/other"]), "/other");
        }
        check(&["knarr", "snapshot", "--config", "FILE", "--data-dir", "/other", "save", "x"], "/other");
        check(&["knarr", "status"], crate::paths::DEFAULT);
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
