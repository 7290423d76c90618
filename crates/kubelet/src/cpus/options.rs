//! Options of the policy `static`, in upstream's words. Pure.

use std::str::FromStr;

use apimachinery::text::parse_bool;

const FULL_CORES: &str = "full-pcpus-only";
const STRICT: &str = "strict-cpu-reservation";
/// Those that need a feature gate which is off by default.
const ALPHA: [&str; 2] = ["align-by-socket", "distribute-cpus-across-cores"];
const ACROSS_NODES: &str = "distribute-cpus-across-numa";
const BY_CACHE: &str = "prefer-align-cpus-by-uncorecache";

/// Why options cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is not KEY=VALUE.
    #[error("expected KEY=VALUE: {0:?}")]
    Form(String),
    /// Nobody knows it.
    #[error("unknown CPU Manager Policy option: {0:?}")]
    Unknown(String),
    /// It is of a feature that is off.
    #[error("CPU Manager Policy Alpha-level Options not enabled, but option {0:?} provided")]
    Alpha(String),
    /// Its value is neither true nor false.
    #[error("bad value for option {0:?}: {1:?} is neither true nor false")]
    Value(String, String),
}

/// One option and whether it is on, as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    name: &'static str,
    is_on: bool,
}

/// How processors are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whole cores only, so that no two containers share one (KEP-2625).
    pub full_cores: bool,
    /// No container runs on reserved processors, also of those that share the rest (KEP-4540).
    pub strict_reservation: bool,
    /// Evenly from several NUMA nodes where one is not enough (KEP-2902).
    pub across_nodes: bool,
    /// From as few caches of the last level as can be (KEP-4800).
    pub by_cache: bool,
}

impl Options {
    /// What is set; of several settings of one option the last one counts.
    pub fn of(settings: &[Setting]) -> Self {
        let is_on = |name: &str| settings.iter().rev().find(|setting| setting.name == name).is_some_and(|setting| setting.is_on);
        Self {
            full_cores: is_on(FULL_CORES),
            strict_reservation: is_on(STRICT),
            across_nodes: is_on(ACROSS_NODES),
            by_cache: is_on(BY_CACHE),
        }
    }

    /// The names of those that are on.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let all = [
            (FULL_CORES, self.full_cores),
            (STRICT, self.strict_reservation),
            (ACROSS_NODES, self.across_nodes),
            (BY_CACHE, self.by_cache),
        ];
        all.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name)
    }
}

impl FromStr for Setting {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (name, value) = text.split_once('=').ok_or_else(|| Invalid::Form(text.to_owned()))?;
        let own = || name.to_owned();
        let Some(known) = [FULL_CORES, STRICT, ACROSS_NODES, BY_CACHE].into_iter().find(|known| *known == name) else {
            return Err(match name {
                name if ALPHA.contains(&name) => Invalid::Alpha(own()),
                _ => Invalid::Unknown(own()),
            });
        };
        let is_on = parse_bool(value).ok_or_else(|| Invalid::Value(own(), value.to_owned()))?;
        Ok(Self { name: known, is_on })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Docs "Control CPU Management Policies on the Node", static policy options.
    #[test]
    fn settings() {
        let check = |texts: &[&str], expected: Result<&[&str], &str>| {
            let found: Result<Vec<Setting>, _> = texts.iter().map(|text| text.parse()).collect();
            let found = found.map(|settings| Options::of(&settings).names().collect::<Vec<_>>());
            assert_eq!(found.map_err(|why| why.to_string()), expected.map(<[_]>::to_vec).map_err(str::to_owned), "{texts:?}");
        };
        check(&[], Ok(&[]));
        check(&["full-pcpus-only=true"], Ok(&["full-pcpus-only"]));
        check(&["strict-cpu-reservation=1", "full-pcpus-only=T"], Ok(&["full-pcpus-only", "strict-cpu-reservation"]));
        check(&["full-pcpus-only=true", "full-pcpus-only=false"], Ok(&[]));
        check(&["full-pcpus-only"], Err("expected KEY=VALUE: \"full-pcpus-only\""));
        check(&["full-pcpus-only=yes"], Err("bad value for option \"full-pcpus-only\": \"yes\" is neither true nor false"));
        check(&["other=true"], Err("unknown CPU Manager Policy option: \"other\""));
        let alpha = "CPU Manager Policy Alpha-level Options not enabled, but option \"align-by-socket\" provided";
        check(&["align-by-socket=true"], Err(alpha));
        let both = ["distribute-cpus-across-numa", "prefer-align-cpus-by-uncorecache"];
        check(&["distribute-cpus-across-numa=true", "prefer-align-cpus-by-uncorecache=true"], Ok(&both));
    }
}
