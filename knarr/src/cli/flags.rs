//! The options of a subcommand with their values, as `/flagz` shows them.

use std::sync::Arc;

use base::zpages::Flags;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// All options of the subcommand that was given, also those that were left at their default.
pub(super) fn all(command: &Command, matches: &ArgMatches) -> Flags {
    let Some((name, matches)) = matches.subcommand() else { return Flags::default() };
    let arguments = command.find_subcommand(name).into_iter().flat_map(Command::get_arguments);
    let options = arguments.filter(|argument| !matches!(argument.get_action(), ArgAction::Help | ArgAction::Version));
    let flags = options.filter_map(|argument| Some((argument.get_long()?.to_owned(), value(argument, matches))));
    Arc::new(flags.collect())
}

/// One value as it was written, several as upstream writes lists.
fn value(argument: &Arg, matches: &ArgMatches) -> String {
    let values = matches.get_raw(argument.get_id().as_str()).into_iter().flatten();
    let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
    match argument.get_action() {
        ArgAction::Append => format!("[{}]", values.join(",")),
        _ => values.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;

    #[test]
    fn every_option_with_its_value() {
        let args = ["knarr", "server", "--port", "7443", "--no-agent", "--tls-san", "a,b", "--log-level", "debug"];
        let cli = Cli::read(args.map(OsString::from).to_vec());
        let Command::Server(options) = cli.command else { panic!("another command") };
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(options.node.flags.get(name).map(String::as_str), expected, "{name}");
        };
        check("port", Some("7443"));
        check("no-agent", Some("true"));
        check("tls-san", Some("[a,b]"));
        check("log-level", Some("debug"));
        check("cluster-cidr", Some("[10.42.0.0/16]"));
        check("kubelet-port", Some("10250"));
        check("node-name", Some(""));
        check("help", None);
    }
}
