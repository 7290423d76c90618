//! Volumes of huge pages: the size of the pages comes from what the pod asks for. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ResourceRequirements;

use crate::resources::HUGE_PAGES;
use crate::spec::Model;

/// The medium of such a volume; a size of pages may follow after a hyphen.
pub const MEDIUM: &str = "HugePages";

/// Why such a volume cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a medium.
    #[error("medium {0:?} is not supported")]
    Medium(String),
    /// The pod asks for other pages, or for none.
    #[error("medium {0:?}: no container asks for {HUGE_PAGES}{1}")]
    NotAsked(String, String),
    /// It does not say which.
    #[error(
        "medium \"HugePages\" is of the one size of huge pages that the pod's containers ask for, and they ask for {0}: name the size (HugePages-2Mi)"
    )]
    Which(usize),
}

/// The options of the mount for a volume of `medium`.
///
/// # Errors
/// The pod asks for no such pages.
pub fn options(medium: &str, model: &Model) -> Result<String, Error> {
    let of_containers = model.members.iter().map(|member| &member.spec.resources);
    let asked: BTreeSet<&str> = of_containers.chain([&model.spec().resources]).flatten().flat_map(sizes).collect();
    let size = match medium.strip_prefix(MEDIUM).map(|rest| (rest, rest.strip_prefix('-'))) {
        Some(("", _)) => match asked.iter().collect::<Vec<_>>().as_slice() {
            [only] => **only,
            others => return Err(Error::Which(others.len())),
        },
        Some((_, Some(size))) if asked.contains(size) => size,
        Some((_, Some(size))) => return Err(Error::NotAsked(medium.to_owned(), size.to_owned())),
        _ => return Err(Error::Medium(medium.to_owned())),
    };
    // The kernel's sizes have one letter.
    Ok(format!("pagesize={}", size.trim_end_matches('i')))
}

/// Sizes of huge pages that are asked for, by a container or for the pod as a whole.
fn sizes(resources: &ResourceRequirements) -> impl Iterator<Item = &str> {
    let names = [&resources.requests, &resources.limits].into_iter().flatten().flat_map(|list| list.keys());
    names.filter_map(|name| name.strip_prefix(HUGE_PAGES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::model;
    use serde_json::json;

    #[track_caller]
    fn check(medium: &str, asked: &[&str], expected: Result<&str, &str>) {
        let container =
            |(index, name): (usize, &&str)| json!({"name": format!("c{index}"), "resources": {"limits": {*name: "4Mi"}}});
        let containers: Vec<_> = asked.iter().enumerate().map(container).collect();
        let options = options(medium, &model(json!({"containers": containers})));
        assert_eq!(options.as_deref().map_err(ToString::to_string), expected.map_err(str::to_owned));
    }

    /// Manage HugePages: "It is used when requests for multiple HugePage sizes" for `HugePages-<hugepagesize>`, and `HugePages` where there is one.
    #[test]
    fn the_size_of_pages_is_what_the_pod_asks_for() {
        check("HugePages", &["hugepages-2Mi", "cpu", "hugepages-2Mi"], Ok("pagesize=2M"));
        check("HugePages-1Gi", &["hugepages-2Mi", "hugepages-1Gi"], Ok("pagesize=1G"));
        check("HugePages-64Ki", &["hugepages-64Ki"], Ok("pagesize=64K"));
        let of_pod = model(json!({"resources": {"limits": {"hugepages-2Mi": "4Mi"}}, "containers": [{"name": "c"}]}));
        assert_eq!(options("HugePages", &of_pod).as_deref(), Ok("pagesize=2M"));
        check("HugePages-1Gi", &["hugepages-2Mi"], Err("medium \"HugePages-1Gi\": no container asks for hugepages-1Gi"));
        let which = |count: usize| {
            format!(
                "medium \"HugePages\" is of the one size of huge pages that the pod's containers ask for, and they ask for {count}: name the size (HugePages-2Mi)"
            )
        };
        check("HugePages", &["cpu"], Err(&which(0)));
        check("HugePages", &["hugepages-2Mi", "hugepages-1Gi"], Err(&which(2)));
        check("HugePagesX", &["hugepages-2Mi"], Err("medium \"HugePagesX\" is not supported"));
    }
}
