//! `api-resources`: what the server serves, and by which names.

use clap::{ArgAction, Args, ValueEnum};

use crate::discovery::{Resource, Resources};
use crate::error::Result;
use crate::output::print;
use crate::session::{Connection, Session};
use crate::table::{self, WIDE};

/// Options of `api-resources`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Form: wide shows verbs and categories, too, name shows names alone.
    #[arg(short, long, value_enum)]
    output: Option<Form>,
    /// Those of namespaces, or, with false, those without.
    #[arg(long, action = ArgAction::Set, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    namespaced: Option<bool>,
    /// Those of a group.
    #[arg(long, value_name = "GROUP")]
    api_group: Option<String>,
    /// Those that have all of these verbs.
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    /// Those of a category, such as all.
    #[arg(long, value_name = "NAME")]
    categories: Option<String>,
    /// Without the names of the columns.
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Wide,
    Name,
}

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let session = Session::open(&options.connection).await?;
    print(&told(session.resources().await?, options))
}

fn told(resources: &Resources, options: &Options) -> String {
    let is_shown = |resource: &&Resource| {
        options.namespaced.is_none_or(|namespaced| namespaced == resource.namespaced)
            && options.api_group.as_ref().is_none_or(|group| *group == resource.group)
            && options.verbs.iter().all(|verb| resource.can(verb))
            && options.categories.as_ref().is_none_or(|category| resource.categories.contains(category))
    };
    let mut shown: Vec<_> = resources.preferred().filter(is_shown).collect();
    shown.sort_by_key(|resource| (&resource.group, &resource.plural));
    if options.output == Some(Form::Name) {
        return shown.iter().map(|resource| format!("{}\n", resource.qualified())).collect();
    }
    let wide = options.output == Some(Form::Wide);
    let row = |resource: &&Resource| {
        let namespaced = resource.namespaced.to_string();
        let mut row =
            vec![resource.plural.clone(), resource.short.join(","), resource.api_version(), namespaced, resource.kind.clone()];
        if wide {
            row.extend([resource.verbs.join(","), resource.categories.join(",")]);
        }
        row
    };
    let header = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND", "VERBS", "CATEGORIES"];
    let header = header.iter().take(if wide { 7 } else { 5 }).map(|name| (*name).to_owned()).collect();
    let rows = (!options.no_headers).then_some(header).into_iter().chain(shown.iter().map(row));
    table::lines(WIDE, &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::parsed;

    #[test]
    fn tables() {
        let resources = crate::discovery::tests::some();
        let check = |line: &str, expected: &str| {
            let options = parsed(line).unwrap();
            assert_eq!(told(&resources, &options), expected, "{line}");
        };
        check("-o name --api-group=apps", "deployments.apps\n");
        check("-o name --namespaced=false", "nodes\nships.example.com\n");
        check("-o name --verbs=get,delete", "");
        check(
            "--api-group=apps",
            "NAME          SHORTNAMES   APIVERSION   NAMESPACED   KIND\ndeployments   deploy       apps/v1      true         Deployment\n",
        );
    }
}
