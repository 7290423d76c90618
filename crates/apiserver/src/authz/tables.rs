//! What the tables of default roles are made of.

/// A line of a role: `(verbs, groups, resources)`, or `(verbs, "", paths)` when the resources start with a slash or are `*URL`.
/// After resources may stand ` @ ` and the names of the only objects it is about.
pub(super) type Line = (&'static str, &'static str, &'static str);

/// A role of the tables.
pub(super) struct Role {
    pub(super) name: &'static str,
    /// Roles that aggregate this one: `view`, `edit`, `admin`.
    pub(super) into: &'static [&'static str],
    /// The role that this one is, when it aggregates others.
    pub(super) aggregates: Option<&'static str>,
    pub(super) lines: &'static [Line],
}
