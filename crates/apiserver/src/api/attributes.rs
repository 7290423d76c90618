//! Requests as authorization sees them.

use crate::authz::{Attributes, Selecting};
use crate::call::{Call, Inner};
use crate::dispatch::Plan;
use crate::query::Query;
use crate::route::{Route, Target};

impl Inner {
    /// What the selectors of a list, a watch or a deletion of a collection restrict it to. Only webhooks ask for labels.
    pub(super) fn selecting(&self, call: &Call<'_>, route: &Route<'_>, plan: &Plan) -> Option<Selecting> {
        let selects = matches!(route, Route::Resource(_)) && matches!(plan.verbs[0], "list" | "watch" | "deletecollection");
        if !selects || !call.query.contains("Selector") {
            return None;
        }
        let query = Query::parse(call.query);
        let labels = query.get("labelSelector").filter(|_| self.authorizer.waits()).unwrap_or_default();
        Some(Selecting::of_texts(query.get("fieldSelector").unwrap_or_default(), labels))
    }

    pub(super) fn attributes<'a>(
        &self,
        call: &'a Call<'_>,
        route: &Route<'a>,
        verb: &'a str,
        selecting: Option<&'a Selecting>,
    ) -> Attributes<'a> {
        let base = Attributes::new(&call.user);
        match *route {
            Route::Other => Attributes { verb, path: call.path, ..base },
            Route::Resource(ref target @ Target { group, version, plural, name, sub, .. }) => Attributes {
                verb,
                group,
                version,
                resource: plural,
                subresource: sub,
                namespace: target.scope(),
                name: match (name, selecting) {
                    ("", Some(selecting)) => selecting.exact("metadata.name").unwrap_or_default(),
                    _ => name,
                },
                is_resource: true,
                selecting,
                ..base
            },
        }
    }
}
