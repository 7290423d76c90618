//! Options of the topology manager's policies, in upstream's words, and how far NUMA nodes are from each other. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use apimachinery::text::parse_bool;

use super::{Mask, NODES};

const CLOSEST: &str = "prefer-closest-numa-nodes";
const MOST: &str = "max-allowable-numa-nodes";

/// Why options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is not KEY=VALUE.
    #[error("expected KEY=VALUE: {0:?}")]
    Form(String),
    /// Nobody knows it.
    #[error("unknown Topology Manager Policy option: {0:?}")]
    Unknown(String),
    /// Its value is neither true nor false.
    #[error("bad value for option {CLOSEST:?}: {0:?} is neither true nor false")]
    Value(String),
    /// Its value is no number.
    #[error("unable to convert policy option to integer {MOST:?}: {0:?}")]
    Number(String),
    /// Hints would be for fewer nodes than there may be anyway.
    #[error("the minimum value of {MOST:?} should not be less than {NODES}")]
    Few,
    /// Hints are for all sets of nodes: their number doubles with each.
    #[error("{MOST:?}: hints for more than {NODES} NUMA nodes are not there, and a machine with more of them can have no policy")]
    Many,
}

/// One option, as the command line has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Of sets of nodes that are as large, the one is best whose nodes are closest to each other (KEP-3545).
    Closest(bool),
    /// As many nodes as there may be without it.
    Most,
}

impl FromStr for Setting {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, value) = text.split_once('=').ok_or_else(|| Invalid::Form(text.to_owned()))?;
        match (name, value) {
            (CLOSEST, word) => parse_bool(word).map(Self::Closest).ok_or_else(|| Invalid::Value(word.to_owned())),
            (MOST, number) => match number.parse::<usize>().map_err(|_| Invalid::Number(number.to_owned()))? {
                NODES => Ok(Self::Most),
                fewer if fewer < NODES => Err(Invalid::Few),
                _ => Err(Invalid::Many),
            },
            (other, _) => Err(Invalid::Unknown(other.to_owned())),
        }
    }
}

/// What is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Close nodes are better than others.
    pub closest: bool,
}

impl Options {
    /// Of several settings of one option the last one counts.
    pub fn of(settings: &[Setting]) -> Self {
        let mut options = Self::default();
        for setting in settings {
            if let Setting::Closest(is_on) = setting {
                options.closest = *is_on;
            }
        }
        options
    }

    /// As the kubelet's configuration has them.
    pub fn named(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.closest.then_some((CLOSEST, "true")).into_iter()
    }
}

/// How far NUMA nodes are from each other, as the firmware says: 10 is a node's own memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distances(BTreeMap<(u32, u32), u64>);

impl Distances {
    /// What the kernel's `distance` files of these nodes say, each in the order of all nodes that are online.
    pub fn read(online: &BTreeSet<u32>, file: impl Fn(u32) -> String) -> Self {
        let of_node = |from: u32| {
            let text = file(from);
            let distances: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            online.iter().zip(distances).map(move |(to, distance)| ((from, *to), distance)).collect::<Vec<_>>()
        };
        Self(online.iter().flat_map(|node| of_node(*node)).collect())
    }

    /// All distances within a set of nodes together: of sets that are as large, the lower the closer.
    pub fn within(&self, mask: Mask) -> u64 {
        self.0.iter().filter(|((from, to), _)| mask.has(*from) && mask.has(*to)).map(|(_, distance)| distance).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Docs "Control Topology Management Policies on a node", policy options.
    #[test]
    fn settings() {
        let check = |texts: &[&str], expected: Result<bool, &str>| {
            let found: Result<Vec<Setting>, _> = texts.iter().map(|text| text.parse()).collect();
            let found = found.map(|settings| Options::of(&settings).closest).map_err(|why| why.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{texts:?}");
        };
        check(&[], Ok(false));
        check(&["prefer-closest-numa-nodes=true", "max-allowable-numa-nodes=8"], Ok(true));
        check(&["prefer-closest-numa-nodes=true", "prefer-closest-numa-nodes=0"], Ok(false));
        check(&["prefer-closest-numa-nodes"], Err("expected KEY=VALUE: \"prefer-closest-numa-nodes\""));
        let neither = "bad value for option \"prefer-closest-numa-nodes\": \"yes\" is neither true nor false";
        check(&["prefer-closest-numa-nodes=yes"], Err(neither));
        check(&["other=true"], Err("unknown Topology Manager Policy option: \"other\""));
        check(
            &["max-allowable-numa-nodes=4"],
            Err("the minimum value of \"max-allowable-numa-nodes\" should not be less than 8"),
        );
        let many = "\"max-allowable-numa-nodes\": hints for more than 8 NUMA nodes are not there, and a machine with more of them can have no policy";
        check(&["max-allowable-numa-nodes=9"], Err(many));
        check(
            &["max-allowable-numa-nodes=x"],
            Err("unable to convert policy option to integer \"max-allowable-numa-nodes\": \"x\""),
        );
    }

    #[test]
    fn distances() {
        let online = BTreeSet::from([0, 1, 3]);
        let files = BTreeMap::from([(0, "10 20 30\n"), (1, "20 10 20"), (3, "30 20 10")]);
        let distances = Distances::read(&online, |node| files[&node].to_owned());
        let check = |mask: u64, expected: u64| assert_eq!(distances.within(Mask(mask)), expected, "{mask:b}");
        check(0b1, 10);
        check(0b11, 60);
        check(0b1001, 80);
        check(0b1010, 60);
        assert_eq!(Distances::read(&online, |_| String::new()).within(Mask(0b11)), 0);
    }
}
