//! How long things take; prints, never judges.

use std::time::{Duration, Instant};

use runtime::api::Runtime;

use crate::support::Node;

fn median(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    println!("{name:<28} median {:>7.2} ms   p95 {:>7.2} ms", at(50), at(95));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints timings"]
async fn sandbox_and_container() {
    let Some(node) = Node::start().await else { return };
    let mut times: [Vec<Duration>; 7] = Default::default();
    for round in 0..30 {
        let mut step = Instant::now();
        let mut lap = |index: usize| {
            times[index].push(step.elapsed());
            step = Instant::now();
        };
        let sandbox = node.sandbox(&format!("speed-{round}")).await;
        lap(0);
        let mut config = node.config("main", "");
        config.command = vec!["true".into()];
        let id = node.engine().create_container(&sandbox, config).await.unwrap().id;
        lap(1);
        node.engine().start_container(&id).await.unwrap();
        lap(2);
        node.ended(&id).await;
        lap(3);
        let other = node.run(&sandbox, "other", "sleep 1000").await;
        lap(5);
        node.engine().exec_sync(&other, &["true".to_owned()], crate::support::LONG, 0).await.unwrap();
        lap(4);
        if round == 0 {
            let pid = std::fs::read_to_string(node.dir.path().join(format!("run/sandboxes/{sandbox}/shim-state.json"))).unwrap();
            let state: serde_json::Value = serde_json::from_str(&pid).unwrap();
            let smaps = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", state["pid"])).unwrap();
            smaps
                .lines()
                .filter(|line| line.starts_with("Private_") || line.starts_with("Pss:"))
                .for_each(|line| println!("shim {line}"));
        }
        let step = Instant::now();
        node.engine().remove_sandbox(&sandbox).await.unwrap();
        times[6].push(step.elapsed());
    }
    let names = [
        "run_sandbox",
        "create_container",
        "start_container",
        "end seen",
        "exec_sync true",
        "create and start another",
        "remove_sandbox",
    ];
    for (name, times) in names.into_iter().zip(times) {
        median(name, times);
    }
}
