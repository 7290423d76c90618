//! Plain HTTP to workloads.

use std::io::{Error, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Fetches a page with a connection of its own.
///
/// # Errors
/// When nobody answers within a few seconds, or not with status 200.
pub fn get(address: &str, path: &str) -> Result<String> {
    let address = address.parse().map_err(Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| Error::other("not an HTTP answer"))?;
    let ok = head.lines().next().is_some_and(|line| line.contains(" 200 "));
    if ok { Ok(body.to_owned()) } else { Err(Error::other(head.to_owned())) }
}
