#![allow(clippy::unwrap_used)]
use super::super::Hierarchy;
use super::*;

/// One hierarchy with these controllers, and a group `g` in it.
fn one_group(unified: bool, controllers: &str) -> (tempfile::TempDir, Cgroups) {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("cgroup.controllers"), controllers).unwrap();
    fs::create_dir(root.path().join("g")).unwrap();
    let controllers = controllers.split(' ').map(str::to_owned).collect();
    let hierarchies = vec![Hierarchy { mount: root.path().to_owned(), controllers }];
    (root, Cgroups { unified, hierarchies })
}

#[test]
fn limits_become_settings() {
    let limits = Resources { cpu_quota: Some(50_000), memory_limit: Some(1 << 20), cpu_shares: Some(2), ..Default::default() };
    let two = Cgroups { unified: true, hierarchies: vec![] }.settings(&limits);
    assert_eq!(two[0], Setting::asked("cpu", "cpu.max", "50000 100000"));
    assert_eq!(two[1], Setting::usual("cpu", "cpu.weight", 1));
    let one = Cgroups { unified: false, hierarchies: vec![] }.settings(&limits);
    assert_eq!(one.last().unwrap(), &Setting::asked("memory", "memory.limit_in_bytes", 1_048_576));
    assert_eq!((weight(2), weight(262_144), weight(1024)), (1, 10_000, 39));
}

/// What the kernel refuses is an error; without its controller a limit is one where somebody asked for it, whether the group is made or
/// changed (OCI runtime specification, config-linux.md: "runtimes MUST generate an error" for what cannot be applied).
#[test]
fn a_limit_that_cannot_be_set_is_refused() {
    let memory = Resources { memory_limit: Some(1 << 20), ..Resources::default() };
    let processes = Resources { pids_limit: Some(10), ..Resources::default() };
    let quota = Resources { cpu_quota: Some(5), ..Resources::default() };
    let huge = |limit| Resources { huge_pages: [("2MB".to_owned(), limit)].into(), ..Resources::default() };
    let check = |limits: &Resources, directories: &[&str], refused: Option<&str>| {
        let (root, cgroups) = one_group(false, "memory pids");
        // A directory in the place of a file cannot be written, by whomever.
        directories.iter().for_each(|name| fs::create_dir(root.path().join("g").join(name)).unwrap());
        assert_eq!(cgroups.missing(), ["cpu", "cpuset"]);
        let made = cgroups.create("g", limits).map_err(|error| error.to_string());
        assert_eq!(made.is_err(), refused.is_some(), "{made:?}");
        assert!(refused.is_none_or(|words| made.as_ref().unwrap_err().starts_with(words)), "{made:?}");
    };
    check(&memory, &["memory.limit_in_bytes"], Some("memory.limit_in_bytes of g to 1048576: Is a directory"));
    check(&processes, &["pids.max"], Some("pids.max of g to 10: Is a directory"));
    check(&memory, &[], Some("memory.limit_in_bytes of g to 1048576: No such file"));
    check(&processes, &[], None);
    check(&quota, &[], Some("cpu.cfs_period_us of g to 100000: the cpu cgroup controller is missing"));
    check(&huge(4 << 20), &[], Some("hugetlb.2MB.limit_in_bytes of g to 4194304: the hugetlb cgroup controller is missing"));
    check(&huge(0), &[], None);
    let (_root, cgroups) = one_group(false, "memory pids");
    let text = |result: io::Result<()>| result.map_err(|error| error.to_string());
    let pinned = "cpuset.cpus of g to 0-1: the cpuset cgroup controller is missing";
    assert_eq!(text(cgroups.pin("g", "0-1")), Err(pinned.to_owned()));
    assert_eq!(
        text(cgroups.set_cpu("g", &quota)).unwrap_err(),
        "cpu.cfs_period_us of g to 100000: the cpu cgroup controller is missing"
    );
    assert_eq!(text(cgroups.set_cpu("g", &Resources::default())), Ok(()), "no limit needs no controller");
}

/// hugetlb of cgroup v2 and v1: `hugetlb.<size>.max`, `hugetlb.<size>.limit_in_bytes`, and the same of what is reserved.
#[test]
fn huge_pages_are_limited_where_the_kernel_can() {
    let check = |unified: bool, controllers: &str, files: &[&str], limit: u64, expected: Result<(), &str>| {
        let (root, cgroups) = one_group(unified, controllers);
        files.iter().for_each(|file| fs::write(root.path().join("g").join(file), "max").unwrap());
        let limits = Resources { huge_pages: [("2MB".to_owned(), limit)].into(), ..Resources::default() };
        let made = cgroups.create("g", &limits).map_err(|error| error.to_string());
        assert_eq!(made, expected.map_err(str::to_owned));
        assert_eq!(cgroups.limits_huge_pages(), controllers.contains("hugetlb"));
        let texts = files.iter().map(|file| fs::read_to_string(root.path().join("g").join(file)).unwrap());
        assert!(texts.into_iter().all(|text| text == limit.to_string()));
    };
    let (max, reserved, old) = ("hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "hugetlb.2MB.limit_in_bytes");
    check(true, "cpu hugetlb", &[max, reserved], 4 << 20, Ok(()));
    check(true, "cpu hugetlb", &[max], 4 << 20, Ok(()));
    let missing = "hugetlb.2MB.max of g to 4194304: the hugetlb cgroup controller is missing";
    check(true, "cpu memory", &[], 4 << 20, Err(missing));
    check(true, "cpu memory", &[], 0, Ok(()));
    check(false, "hugetlb", &[old], 4 << 20, Ok(()));
}

fn memory_of(limit: i64) -> Resources {
    Resources { memory_limit: Some(limit), ..Resources::default() }
}

#[test]
fn limits_of_a_group_change_in_an_order_that_the_kernel_takes() {
    let (root, one) = one_group(false, "cpu memory pids");
    let file = |name: &str, value: &str| fs::write(root.path().join("g").join(name), value).unwrap();
    for name in ["cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "memory.limit_in_bytes"] {
        file(name, "");
    }
    file("memory.usage_in_bytes", "1000");
    file("memory.stat", "inactive_file 5\ntotal_inactive_file 600\n");
    assert_eq!(one.memory_in_use("g").unwrap(), 400);
    let names = |limit: Option<i64>| -> Vec<String> {
        one.memory_updates("g", limit).unwrap().into_iter().map(|setting| setting.file.into_owned()).collect()
    };
    let (memory, swap) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
    assert_eq!(names(Some(500)), [memory]);
    file(swap, "9223372036854771712");
    assert_eq!(names(Some(500)), [memory]);
    file(swap, "1000");
    assert_eq!(names(Some(500)), [memory, swap]);
    assert_eq!(names(Some(2000)), [swap, memory]);
    assert_eq!(names(None), [swap, memory]);
    for refused in [one.update("g", &memory_of(399)), one.limit("g", &memory_of(399))] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.to_string(), "attempting to set memory limit (399) below current usage (400)");
    }
    one.update("g", &Resources { cpu_shares: Some(512), ..Default::default() }).unwrap();
    let read = |name: &str| fs::read_to_string(root.path().join("g").join(name)).unwrap();
    assert_eq!((read("cpu.cfs_quota_us"), read("cpu.shares"), read(memory)), ("-1".into(), "512".into(), "-1".into()));
    one.limit("g", &Resources { pids_limit: Some(7), ..memory_of(5000) }).unwrap();
    assert_eq!((read(memory), read("cpu.shares")), ("5000".into(), "512".into()));
    one.update("g", &Resources { cpu_quota: Some(5000), cpu_period: Some(10_000), ..Default::default() }).unwrap();
    assert_eq!((read("cpu.cfs_quota_us"), read("cpu.cfs_period_us")), ("5000".into(), "10000".into()));
}
