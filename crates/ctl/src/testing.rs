//! Options as a command line gives them, for tests.

use clap::{Args, Command, Error};

/// The options of a line without the command's name.
pub(crate) fn parsed<O: Args>(line: &str) -> Result<O, Error> {
    let command = O::augment_args(Command::new("test").no_binary_name(true));
    O::from_arg_matches(&command.try_get_matches_from(line.split_whitespace())?)
}
