//! Port-forward: many connections to ports of a pod over one connection of the client.

use std::collections::HashMap;

use base::tasks::{OnFailure, Tasks};
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::upgrade::{self, Accepted, Refusal, Transport};
use crate::websocket::{self, ByteStream, Channel, Encoding, Way};
use crate::{Error, LAST, PIPE, Stream, ended, spdy};

const SPDY: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V4_BASE64: &str = "v4.base64.channel.k8s.io";
/// Two channels each, below the number that closes a channel.
const MAX_PORTS: usize = 127;
/// Connections whose second stream has not come yet.
const MAX_HALF_OPEN: usize = 256;

/// One forwarded connection.
pub struct Connection {
    /// The pod's port.
    pub port: u16,
    /// Both directions of the connection. Shut down when the pod has sent its last byte.
    pub data: Stream,
    /// An error message for the user, if the connection fails; dropped empty otherwise.
    pub error: Stream,
}

/// Accepts the upgrade: answer with the response; each connection then arrives on the receiver, which ends with the
/// client. `tasks` runs the connection.
pub fn accept<B>(request: &mut Request<B>, tasks: &Tasks) -> Result<(Response<()>, mpsc::Receiver<Connection>), Refusal> {
    let ports = request.uri().query().map(ports).unwrap_or_default();
    if ports.len() > MAX_PORTS {
        let message = format!("{} ports are too many for one connection: {MAX_PORTS} fit", ports.len());
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    // A WebSocket client that names no subprotocol speaks binary v4.
    let accepted = upgrade::negotiate(request, &[TUNNEL, V4, V4_BASE64, ""], &[SPDY])?;
    let Accepted { transport, protocol, response, upgrade } = accepted;
    if transport == Transport::WebSocket && protocol != TUNNEL && ports.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "query parameter \"ports\" is required"));
    }
    let (sender, connections) = mpsc::channel(16);
    tasks.spawn_until_cancelled("port-forward stream", OnFailure::Log, async move {
        let io = upgrade::socket(upgrade).await?;
        ended(match (transport, protocol) {
            (Transport::Spdy, _) => over_spdy(io, sender).await,
            (Transport::WebSocket, TUNNEL) => over_spdy(ByteStream::new(upgrade::websocket(io, false).await), sender).await,
            (Transport::WebSocket, _) => over_channels(io, &ports, protocol, sender).await,
        })
    });
    Ok((response, connections))
}

/// The ports of a `ports=80&ports=81` (API) or `port=80` (kubelet) query.
fn ports(query: &str) -> Vec<u16> {
    let values = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(name, _)| matches!(*name, "port" | "ports"));
    values.flat_map(|(_, value)| value.split("%2C").flat_map(|v| v.split(','))).filter_map(|port| port.parse().ok()).collect()
}

async fn over_spdy<S>(io: S, connections: mpsc::Sender<Connection>) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sender, mut opened) = mpsc::channel(16);
    let pairing = async {
        let mut pairs = Pairs::default();
        while let Some(stream) = opened.recv().await {
            if let Some(connection) = pairs.add(stream)
                && connections.send(connection).await.is_err()
            {
                break;
            }
        }
        Ok(())
    };
    spdy::serve(io, sender, pairing, LAST).await
}

/// Streams that wait for the other one of their connection, by request id.
#[derive(Default)]
struct Pairs(HashMap<String, (Option<Stream>, Option<Stream>)>);

impl Pairs {
    fn add(&mut self, opened: spdy::Opened) -> Option<Connection> {
        let port = opened.header("port").parse().ok().filter(|port| *port != 0)?;
        let id = match opened.header("requestid") {
            // Before request ids, clients used one stream id after the other for the two.
            "" => opened.id.saturating_sub(if opened.header("streamtype") == "data" { 2 } else { 0 }).to_string(),
            id => id.to_owned(),
        };
        if self.0.len() >= MAX_HALF_OPEN && !self.0.contains_key(&id) {
            return None;
        }
        let pair = self.0.entry(id.clone()).or_default();
        match opened.header("streamtype") {
            "data" => pair.0 = Some(opened.stream),
            "error" => pair.1 = Some(opened.stream),
            _ => {}
        }
        if !matches!(pair, (Some(_), Some(_))) {
            return None;
        }
        match self.0.remove(&id) {
            Some((Some(data), Some(error))) => Some(Connection { port, data, error }),
            _ => None,
        }
    }
}

/// Two channels per port of the query, each of which starts with the port's number, little-endian.
async fn over_channels<S>(io: S, ports: &[u16], protocol: &str, connections: mpsc::Sender<Connection>) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let encoding = if protocol == V4_BASE64 { Encoding::Base64 } else { Encoding::Binary };
    let mut channels = Vec::new();
    for (port, id) in ports.iter().zip((0u8..).step_by(2)) {
        let ((data_near, mut data), (error_near, mut error)) = (tokio::io::duplex(PIPE), tokio::io::duplex(PIPE));
        data.write_all(&port.to_le_bytes()).await?;
        error.write_all(&port.to_le_bytes()).await?;
        channels.push(Channel { id, stream: data_near, way: Way::Both });
        channels.push(Channel { id: id + 1, stream: error_near, way: Way::Out });
        connections.send(Connection { port: *port, data, error }).await.map_err(|_| Error::Closed)?;
    }
    drop(connections);
    websocket::serve(upgrade::websocket(io, true).await, channels, encoding).await
}

#[cfg(test)]
mod tests;
