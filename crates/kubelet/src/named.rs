//! Options of which each value has a name, in upstream's words.

/// No value of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not one of {}", .names.join(", "))]
pub struct Unknown {
    name: String,
    names: &'static [&'static str],
}

impl Unknown {
    /// `names` are those that there are.
    pub(crate) fn new(name: &str, names: &'static [&'static str]) -> Self {
        Self { name: name.to_owned(), names }
    }
}

/// Declares such an option from one list: the values and their names. It has a method `name` and is parsed from a name.
macro_rules! named {
    ($(#[$about:meta])* pub enum $option:ident { $($(#[$of_value:meta])* $value:ident = $name:expr,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $option {
            $($(#[$of_value])* $value,)+
        }

        impl $option {
            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)+
                }
            }
        }

        impl std::str::FromStr for $option {
            type Err = $crate::named::Unknown;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                let known = [$(Self::$value),+].into_iter().find(|value| value.name() == name);
                known.ok_or_else(|| $crate::named::Unknown::new(name, &[$($name),+]))
            }
        }
    };
}

pub(crate) use named;

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::str::FromStr;

    use super::*;
    use crate::{affinity, cpus, images, numa};

    /// Every value is read from its name, and nothing else is.
    #[track_caller]
    fn check<T: FromStr<Err = Unknown> + Copy + Debug + Default + PartialEq>(
        name: fn(T) -> &'static str,
        default: &str,
        names: &str,
    ) {
        for one in names.split(", ") {
            assert_eq!(one.parse::<T>().map(name), Ok(one));
        }
        assert_eq!(name(T::default()), default);
        for other in ["", "other", "NONE"] {
            let told = other.parse::<T>().unwrap_err().to_string();
            assert_eq!(told, format!("{other:?} is not one of {names}"));
        }
    }

    /// Upstream, KubeletConfiguration: cpuManagerPolicy, memoryManagerPolicy, topologyManagerPolicy, topologyManagerScope,
    /// imagePullCredentialsVerificationPolicy.
    #[test]
    fn names_are_upstreams() {
        check(cpus::Policy::name, "none", "none, static");
        check(numa::Policy::name, "None", "None, Static");
        check(affinity::Policy::name, "none", "none, best-effort, restricted, single-numa-node");
        check(affinity::Scope::name, "container", "container, pod");
        check(
            images::access::Policy::name,
            "NeverVerifyPreloadedImages",
            "NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages, AlwaysVerify",
        );
    }
}
