//! API verbs, as authorization, discovery and dispatch know them.

/// What a request does to a resource (Kubernetes documentation, "Determine the request verb").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// A new object, or an action of a sub-resource.
    Create,
    /// One object goes.
    Delete,
    /// Every selected object goes.
    DeleteCollection,
    /// One object.
    Get,
    /// A collection.
    List,
    /// A change in one of the patch formats.
    Patch,
    /// A replacement.
    Update,
    /// The changes of a collection.
    Watch,
}

impl Verb {
    /// All verbs, in the order in which discovery lists them.
    pub const ALL: [Self; 8] =
        [Self::Create, Self::Delete, Self::DeleteCollection, Self::Get, Self::List, Self::Patch, Self::Update, Self::Watch];

    /// As in rules of roles.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// A set of verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerbSet(u8);

impl VerbSet {
    /// What a stored kind takes.
    pub const ALL: Self = Self::of(&Verb::ALL);
    /// What a stored kind takes of which nobody may delete a whole collection.
    pub const WITHOUT_COLLECTION: Self =
        Self::of(&[Verb::Get, Verb::List, Verb::Watch, Verb::Create, Verb::Update, Verb::Patch, Verb::Delete]);
    /// What a kind is said to take whose definition goes.
    pub const CLOSING: Self = Self::of(&[Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Watch]);
    /// What a kind takes that is answered and never kept.
    pub const CREATE: Self = Self::of(&[Verb::Create]);
    /// What a kind takes whose objects are computed.
    pub const READ: Self = Self::of(&[Verb::Get, Verb::List]);
    /// What a sub-resource takes that is a part of the object.
    pub const PART: Self = Self::of(&[Verb::Get, Verb::Patch, Verb::Update]);

    /// The set of these.
    pub const fn of(verbs: &[Verb]) -> Self {
        let (mut bits, mut index) = (0, 0);
        while index < verbs.len() {
            bits |= 1 << verbs[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// Whether the verb is in it.
    pub const fn contains(self, verb: Verb) -> bool {
        self.0 & 1 << verb as u8 != 0
    }

    /// Its verbs, in the order of discovery.
    pub fn iter(self) -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().filter(move |verb| self.contains(*verb))
    }

    /// Their names, in the order of discovery.
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(Verb::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        assert_eq!(VerbSet::PART.names(), ["get", "patch", "update"]);
        assert_eq!(VerbSet::ALL.iter().count(), Verb::ALL.len());
        assert!(VerbSet::CREATE.contains(Verb::Create) && !VerbSet::CREATE.contains(Verb::Watch));
    }
}
