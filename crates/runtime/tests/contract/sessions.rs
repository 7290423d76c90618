//! Commands, terminals, attached streams and connections.

use std::time::Duration;

use runtime::api::{ContainerConfig, Error, ExecRequest, Runtime, Streams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{LONG, Node, OUTPUT};

/// How long a command's children may be silent after its end.
const QUIET: Duration = Duration::from_secs(1);

fn request(script: &str) -> ExecRequest {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    ExecRequest { command, tty: false, stdin: true, stdout: true, stderr: true }
}

/// Reads both outputs to their ends and takes the exit code.
async fn finish(mut streams: Streams) -> (String, String, i32) {
    let (mut out, mut err) = (String::new(), String::new());
    let mut stdout = streams.stdout.take().unwrap();
    let read = async {
        stdout.read_to_string(&mut out).await.unwrap();
    };
    let read_err = async {
        if let Some(mut stderr) = streams.stderr.take() {
            stderr.read_to_string(&mut err).await.unwrap();
        }
    };
    tokio::time::timeout(LONG, async { tokio::join!(read, read_err) }).await.unwrap();
    let code = tokio::time::timeout(LONG, streams.exit).await.unwrap().unwrap().unwrap();
    (out, err, code)
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_to_their_end_or_their_timeout() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("exec").await;
    let id = node.run(&sandbox, "main", "sleep 1000").await;
    let output = node.exec(&id, "echo out; echo err >&2; exit 5").await;
    assert_eq!((output.exit_code, &output.stdout[..], &output.stderr[..]), (5, &b"out\n"[..], &b"err\n"[..]));
    let output = node.exec(&id, "dd if=/dev/zero bs=1024 count=300 2>/dev/null").await;
    assert_eq!(output.stdout.len(), OUTPUT, "output beyond the limit is read and not kept");

    let command = ["sleep".to_owned(), "1000".to_owned()];
    let error = node.engine().exec_sync(&id, &command, Duration::from_millis(300), 0).await.unwrap_err();
    assert!(matches!(error, Error::Timeout(_)), "{error}");
    let left = node.exec(&id, "until test $(ps | grep -c 'sleep 100[0]') = 1; do sleep 0.02; done").await;
    assert_eq!(left.exit_code, 0, "the command was killed");

    let error = node.engine().exec_sync(&id, &["nosuch".to_owned()], LONG, 0).await.unwrap_err();
    assert!(error.to_string().contains("exec: \"nosuch\": executable file not found in $PATH"), "{error}");
    assert!(matches!(node.engine().exec_sync("no-such", &command, LONG, 0).await, Err(Error::NotFound(_))));
    node.engine().stop_container(&id, Duration::ZERO, None).await.unwrap();
    assert!(matches!(node.engine().exec_sync(&id, &command, LONG, 0).await, Err(Error::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_times_out_while_it_starts_is_killed_too() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("early").await;
    let id = node.run(&sandbox, "main", "sleep 1000").await;
    let command = ["sleep".to_owned(), "2000".to_owned()];
    for milliseconds in (1..20).chain([40, 80]) {
        let error = node.engine().exec_sync(&id, &command, Duration::from_millis(milliseconds), 0).await.unwrap_err();
        assert!(matches!(error, Error::Timeout(_)), "{error}");
    }
    let left = node.exec(&id, "until test $(ps | grep -c 'sleep 200[0]') = 0; do sleep 0.02; done").await;
    assert_eq!(left.exit_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_leaves_behind_does_not_hold_up_the_shim() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("noisy").await;
    let id = node.run(&sandbox, "main", "sleep 1000").await;
    let output = node.exec(&id, "yes & exit 3").await;
    assert_eq!(output.exit_code, 3);
    assert_eq!(node.exec(&id, "echo still").await.stdout, b"still\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_children_of_a_command_write_after_its_end_is_read() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("late").await;
    let id = node.run(&sandbox, "main", "sleep 1000").await;
    let run = async |request: ExecRequest| finish(node.engine().exec(&id, request).await.unwrap()).await;
    let late = run(request(
        "(until test -e /gone; do sleep 0.02; done; echo late; echo err >&2) & (sleep 0.1; touch /gone) & echo now; exit 3",
    ));
    assert_eq!(late.await, ("now\nlate\n".to_owned(), "err\n".to_owned(), 3));
    // More than pipes and buffers hold, written after the end of the command.
    let (out, _, code) = run(request("(sleep 0.2; dd if=/dev/zero bs=65536 count=100 2>/dev/null | tr '\\0' x) & exit 0")).await;
    assert_eq!((out.len(), code), (6_553_600, 0));
    // Its input ends with the command.
    let (out, _, code) = run(request("(cat; echo read) <&0 & exit 5")).await;
    assert_eq!((out.as_str(), code), ("read\n", 5));
    // What nobody asked for is not waited for, and the end of a terminal is that of the command.
    let unheard = ExecRequest { stderr: false, ..request("sleep 1000 >/dev/null & echo out") };
    assert_eq!(run(unheard).await, ("out\n".to_owned(), String::new(), 0));
    let terminal = ExecRequest { tty: true, ..request("sleep 1000 & echo out; exit 7") };
    assert_eq!(run(terminal).await, ("out\r\n".to_owned(), String::new(), 7));
    // A daemon that says nothing holds the session up for a moment, and one that speaks is heard to the end of what it said.
    let begin = std::time::Instant::now();
    let (out, _, code) = run(request("sleep 1000 & echo started; exit 4")).await;
    assert_eq!((out.as_str(), code), ("started\n", 4));
    assert!(begin.elapsed() >= QUIET && begin.elapsed() < 20 * QUIET, "{:?}", begin.elapsed());
    let begin = std::time::Instant::now();
    let (out, _, code) = run(request("(for i in 1 2 3; do sleep 0.3; echo $i; done; sleep 1000) & exit 6")).await;
    assert_eq!((out.as_str(), code), ("1\n2\n3\n", 6));
    assert!(begin.elapsed() < 20 * QUIET, "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_streams() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("streams").await;
    let id = node.run(&sandbox, "main", "sleep 1000").await;
    let mut streams = node.engine().exec(&id, request("cat; echo done >&2; exit 6")).await.unwrap();
    let mut stdin = streams.stdin.take().unwrap();
    let data = "x".repeat(200_000);
    let send = async {
        stdin.write_all(data.as_bytes()).await.unwrap();
        drop(stdin);
    };
    let ((), (out, err, code)) = tokio::join!(send, finish(streams));
    assert_eq!((out.len(), err.as_str(), code), (data.len(), "done\n", 6));
}

/// Upstream hands input on to the end before it sees that a client has gone, and the command goes on: who writes and goes has written.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_says_before_they_go_is_read() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("gone").await;
    let id = node.run(&sandbox, "main", "sleep 1000").await;
    let once = ContainerConfig { stdin: true, stdin_once: true, ..node.config("once", "sleep 0.1; cat > /got; exec sleep 1000") };
    let once = node.start_with(&sandbox, once).await;
    let say = async |mut streams: Streams, length: usize| {
        let data = vec![b'x'; length];
        // A command that is heard by nobody does not wait for that: what it says is thrown away.
        tokio::time::timeout(LONG, streams.stdin.as_mut().unwrap().write_all(&data)).await.unwrap().unwrap();
    };
    let got = async |id: &str, length: usize| {
        let script = format!("until test $(stat -c %s /got) = {length}; do sleep 0.02; done; rm /got");
        assert_eq!(node.exec(id, &script).await.exit_code, 0);
    };
    // As much as the pipes hold behind which nobody reads yet, and a command that says what it reads.
    for (command, length) in [("cat > /got", 10), ("sleep 0.3; cat > /got", 100_000), ("sleep 0.3; tee /got", 130_000)] {
        let request = request(&format!("rm -f /got; touch /got; {command}"));
        say(node.engine().exec(&id, request).await.unwrap(), length).await;
        got(&id, length).await;
    }
    say(node.engine().attach(&once, ExecRequest { stdout: false, stderr: false, ..request("") }).await.unwrap(), 100_000).await;
    got(&once, 100_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("tty").await;
    let id = node.run(&sandbox, "main", "sleep 1000").await;
    let request = ExecRequest { tty: true, ..request("read x; stty size; echo $TERM; exit 9") };
    let mut streams = node.engine().exec(&id, request).await.unwrap();
    streams.resize.send((132, 43)).await.unwrap();
    streams.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let stdin = streams.stdin.take();
    let (out, _, code) = finish(streams).await;
    drop(stdin);
    assert_eq!((out.as_str(), code), ("go\r\n43 132\r\nxterm\r\n", 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn attached_streams_belong_to_the_container() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("attach").await;
    let config = ContainerConfig { stdin: true, stdin_once: true, ..node.config("main", "cat; exit 4") };
    let id = node.start_with(&sandbox, config).await;
    let mut streams = node.engine().attach(&id, request("")).await.unwrap();
    let mut stdin = streams.stdin.take().unwrap();
    stdin.write_all(b"hello\n").await.unwrap();
    drop(stdin);
    let (out, _, code) = finish(streams).await;
    assert_eq!((out.as_str(), code), ("hello\n", 4));
    assert_eq!(node.ended(&id).await.exit_code, Some(4));

    // Without `stdinOnce` the sender is done when the input is, and the container goes on.
    let config = ContainerConfig { stdin: true, ..node.config("open", "while read x; do echo got $x; done; echo closed") };
    let id = node.start_with(&sandbox, config).await;
    for word in ["one", "two"] {
        let mut streams = node.engine().attach(&id, request("")).await.unwrap();
        let mut stdin = streams.stdin.take().unwrap();
        stdin.write_all(format!("{word}\n").as_bytes()).await.unwrap();
        let expected = format!("got {word}\n");
        let mut read = vec![0; expected.len()];
        tokio::time::timeout(LONG, streams.stdout.as_mut().unwrap().read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&read), expected);
        drop(stdin);
        let (out, _, code) = finish(streams).await;
        assert_eq!((out.as_str(), code), ("", 0));
    }

    // With a terminal, and a second look.
    let config = ContainerConfig { stdin: true, tty: true, ..node.config("tty", "while read x; do echo got $x; done") };
    let id = node.start_with(&sandbox, config).await;
    for word in ["one", "two"] {
        let mut streams = node.engine().attach(&id, request("")).await.unwrap();
        streams.stdin.as_mut().unwrap().write_all(format!("{word}\n").as_bytes()).await.unwrap();
        let expected = format!("{word}\r\ngot {word}\r\n");
        let mut read = vec![0; expected.len()];
        tokio::time::timeout(LONG, streams.stdout.as_mut().unwrap().read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&read), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_the_pod_are_reached() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("dial").await;
    let id = node.run(&sandbox, "main", "nc -l -p 8080 -e echo hello & touch /ready; wait").await;
    node.wait_ready(&id).await;
    let listening = node.exec(&id, "until grep -q ':1F90 ' /proc/net/tcp /proc/net/tcp6; do sleep 0.02; done").await;
    assert_eq!(listening.exit_code, 0);
    let mut text = String::new();
    node.engine().dial(&sandbox, 8080).await.unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello\n");
    let error = node.engine().dial(&sandbox, 9).await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
}
