//! A test that is killed leaves no process, cgroup, namespace or file behind.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use testing::eventually;
use testing::machine::Machine;

#[test]
#[ignore = "the process that the other test kills"]
fn victim() {
    let machine = Machine::new();
    let mut sleeper = machine.command(Path::new("sleep"));
    let mut sleeper = sleeper.arg("100000").stdout(Stdio::null()).spawn().unwrap();
    eventually("the machine has processes", || {
        machine.processes().iter().any(|(_, line)| line.starts_with("sleep 100000")).then_some(())
    });
    println!("victim on {}", machine.directory().display());
    panic!("not killed before {:?}", sleeper.wait());
}

fn cgroups(name: &str) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let hierarchies = mounts.filter(|fields| fields[2].starts_with("cgroup"));
    hierarchies.map(|fields| format!("{}/{name}", fields[1])).filter(|path| Path::new(path).exists()).collect()
}

#[test]
fn a_killed_test_leaves_nothing() {
    let mut victim = Command::new(std::env::current_exe().unwrap());
    let mut victim = victim.args(["--exact", "victim", "--ignored", "--nocapture"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.contains("victim on ")).expect("the victim's machine");
    let directory = Path::new(line.rsplit(' ').next().unwrap());
    let name = directory.file_name().unwrap().to_str().unwrap();
    let processes = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("cgroup")).ok());
        lines.filter(|groups| groups.contains(&format!("/{name}"))).count()
    };
    assert!(directory.exists() && !cgroups(name).is_empty() && processes() > 0, "{line}");
    victim.kill().unwrap();
    victim.wait().unwrap();
    eventually("the watchdog removes the machine", || {
        (!directory.exists() && cgroups(name).is_empty() && processes() == 0).then_some(())
    });
}
