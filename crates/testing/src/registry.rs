//! The images' registry behind a proxy that knows what it is asked for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Where the images are served.
const REGISTRY: &str = "127.0.0.1:5000";

/// A proxy before the registry, for as long as the test's process lives.
pub struct RegistryProxy(Arc<Mutex<Vec<String>>>);

impl RegistryProxy {
    /// Serves at this address in the network of the thread's machine: everybody, or who shows these credentials (base64 of `user:password`).
    pub fn start(address: &str, credentials: Option<String>) -> Self {
        let (listener, asked) = (TcpListener::bind(address).unwrap(), Arc::<Mutex<Vec<String>>>::default());
        let (log, credentials) = (asked.clone(), Arc::new(credentials));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (log, credentials) = (log.clone(), credentials.clone());
                std::thread::spawn(move || pass(client, &log, credentials.as_deref()));
            }
        });
        Self(asked)
    }

    /// The first lines of the requests that were passed on since the last look.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// One request of one connection.
fn pass(mut client: TcpStream, asked: &Mutex<Vec<String>>, credentials: Option<&str>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let (mut head, mut is_known) = (String::new(), credentials.is_none());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line == "\r\n" {
            break;
        }
        let small = line.to_lowercase();
        is_known |= small.starts_with("authorization:") && credentials.is_some_and(|known| line.trim_end().ends_with(known));
        if !small.starts_with("connection:") && !small.starts_with("authorization:") {
            head.push_str(&line);
        }
    }
    if !is_known {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"crew\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = client.write_all(refusal.as_bytes());
        return;
    }
    asked.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
    let mut registry = TcpStream::connect(REGISTRY).unwrap();
    registry.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A client that has left needs no answer.
    let _ = registry.read_to_end(&mut answer);
    let _ = client.write_all(&answer);
    let _ = client.shutdown(Shutdown::Write);
}
