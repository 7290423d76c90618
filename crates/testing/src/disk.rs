//! Nodes of tests do not look how full the machine's disk is: images would go that a test is about, and pods be evicted.

/// What a node is told unless a test says something else about the same option. Of the defaults these are the thresholds that have nothing
/// to do with a disk.
const OPTIONS: [(&str, &str); 2] =
    [("--eviction-hard", "memory.available<100Mi,pid.available<5%"), ("--image-gc-high-threshold", "100")];

/// The options of a node, with those that keep it from looking at the disk.
pub(crate) fn whatever_is_free(options: &[&str]) -> Vec<String> {
    let says = |name: &str| options.iter().any(|option| option.split('=').next() == Some(name));
    let added = OPTIONS.iter().filter(|(name, _)| !says(name)).map(|(name, value)| format!("{name}={value}"));
    options.iter().map(|option| (*option).to_owned()).chain(added).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_says_holds() {
        let check = |options: &[&str], expected: &[&str]| assert_eq!(whatever_is_free(options), expected);
        let (eviction, images) = ("--eviction-hard=memory.available<100Mi,pid.available<5%", "--image-gc-high-threshold=100");
        check(&[], &[eviction, images]);
        check(&["--eviction-hard=nodefs.available<1Mi"], &["--eviction-hard=nodefs.available<1Mi", images]);
        let own = ["--image-gc-high-threshold", "30", "--eviction-hard", "pid.available<1%"];
        check(&own, &own);
    }
}
