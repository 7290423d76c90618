#![allow(clippy::unwrap_used)]
use std::path::Path;

use super::*;
use crate::images::providers::testing::{Programs, provider};

const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

fn plugin(programs: &Programs, name: &str, limit: Duration) -> Plugin {
    let mut provider = provider(programs, name);
    provider.args = vec!["one".into(), "two words".into()];
    provider.env = vec![("CREW".into(), "seven".into())];
    Plugin { limit, ..Plugin::new(&provider) }
}

async fn ask(programs: &Programs, name: &str, limit: Duration) -> Result<Response, Failure> {
    plugin(programs, name, limit).ask(&Request::new(VERSION, "r.io/a")).await
}

#[tokio::test]
async fn the_program_has_its_question_arguments_and_environment() {
    let answer = r#"{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Image",
        "auth":{"r.io":{"username":"%s %s %s","password":"%s"}}}"#;
    let answer = answer.replace('\n', " ");
    let script = format!(
        "question=$(cat | tr -d '\"')\nprintf '{answer}' \"$1\" \"$2\" \"$CREW\" \"$question $(test -n \"$PATH\" && echo path)\""
    );
    let programs = Programs::new(&[("good", &script)]);
    let found = ask(&programs, "good", LIMIT).await.ok().unwrap();
    let word = &found.auths["r.io"];
    assert_eq!(word.username, "one two words seven");
    assert_eq!(word.password, format!("{{kind:CredentialProviderRequest,apiVersion:{VERSION},image:r.io/a}} path"));
}

#[tokio::test]
async fn programs_that_give_nothing() {
    let programs = Programs::new(&[
        ("exits", "echo secret; echo nothing today >&2; exit 3"),
        ("killed", "kill -9 $$"),
        ("garbage", "echo secret"),
        ("silent", "exit 0"),
        ("gigabytes", "cat /dev/zero"),
        ("complains", "cat /dev/zero | head -c 20000000 >&2; exit 4"),
        ("deaf", "exec 0<&-; exit 5"),
    ]);
    for (name, expected) in [
        ("exits", "it has ended with exit status: 3"),
        ("killed", "it has ended with signal: 9 (SIGKILL)"),
        ("garbage", "no CredentialProviderResponse"),
        ("silent", "no CredentialProviderResponse"),
        ("gigabytes", "more than 1048576 bytes"),
        ("complains", "it has ended with exit status: 4"),
        ("deaf", "it has ended with exit status: 5"),
        ("gone", "No such file"),
    ] {
        let failure = ask(&programs, name, LIMIT).await.err().unwrap().to_string();
        assert!(failure.contains(expected) && !failure.contains("secret"), "{name}: {failure}");
    }
    let mut plugin = plugin(&programs, "exits", LIMIT);
    plugin.env.push(("no=name".into(), "\0".into()));
    assert!(matches!(plugin.ask(&Request::new(VERSION, "r.io/a")).await, Err(Failure::Start(_))));
}

/// Returns when no process has this file open any more: each holds a lock on it.
async fn until_unlocked(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    let lock = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
    tokio::time::timeout(Duration::from_secs(60), lock).await.expect("somebody still runs").unwrap().unwrap();
}

/// A program that hangs ends with all that it has started, when its time is over or nobody waits any more.
#[tokio::test]
async fn nothing_of_a_program_outlives_its_question() {
    let hangs = "exec 9>>\"$0.lock\"; flock -s 9; (sleep 100000 &); echo x > \"$0.runs\"; sleep 100000";
    let programs = Programs::new(&[("hangs", hangs)]);
    let (lock, runs) = (programs.path("hangs.lock"), programs.path("hangs.runs"));
    nix::unistd::mkfifo(&runs, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let failure = ask(&programs, "hangs", Duration::from_secs(2)).await.err().unwrap();
    assert_eq!(failure.to_string(), "it has not ended within 2s");
    if lock.exists() {
        until_unlocked(&lock).await;
    }
    let (plugin, request) = (plugin(&programs, "hangs", LIMIT), Request::new(VERSION, "r.io/a"));
    let begun = tokio::task::spawn_blocking(move || std::fs::read(runs));
    tokio::select! {
        begun = begun => assert_eq!(begun.unwrap().unwrap(), b"x\n"),
        answer = plugin.ask(&request) => panic!("it has not begun: {:?}", answer.err()),
    }
    until_unlocked(&lock).await;
}
