//! A pull, told line by line.

use std::convert::Infallible;
use std::sync::Arc;

use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use runtime::api::Credentials;
use tokio::sync::mpsc;

use super::node::NodeImages;
use super::{Arguments, Entry, Event};

/// Lines that wait for who reads them.
const LINES: usize = 64;

/// Begins a pull, and gives its lines. It goes on when nobody reads them.
pub(super) fn start(node: Arc<NodeImages>, arguments: Arguments, tasks: &Tasks) -> mpsc::Receiver<Bytes> {
    let (lines, receiver) = mpsc::channel(LINES);
    tasks.spawn_until_cancelled("pull of an image", OnFailure::Log, async move {
        pull(&node, arguments, &lines).await;
        Ok::<_, Infallible>(())
    });
    receiver
}

async fn pull(node: &NodeImages, arguments: Arguments, lines: &mpsc::Sender<Bytes>) {
    let (observer, mut progress) = mpsc::channel(LINES);
    let image = arguments.images.into_iter().next().unwrap_or_default();
    let given = arguments.credentials.map(|(username, password)| Credentials { username, password });
    let pulling = async move {
        // Whoever gives credentials means these.
        let (credentials, failures) = match given {
            Some(given) => (vec![given], Vec::new()),
            None => node.credentials(&image).await,
        };
        let pulled = node.engine.pull(&image, &credentials, &observer).await;
        pulled.map_err(|error| std::iter::once(error.to_string()).chain(failures).collect::<Vec<_>>().join("; "))
    };
    let telling = async {
        while let Some(one) = progress.recv().await {
            tell(lines, &Event::Progress { layer: one.layer, done: one.done, size: one.size, ready: one.is_ready }).await;
        }
    };
    let (pulled, ()) = futures::join!(pulling, telling);
    let last = match pulled {
        Ok(image) => {
            node.changed().await;
            Event::Pulled(Entry::new(image, &node.engine.image_users()))
        }
        Err(why) => Event::Failed(why),
    };
    tell(lines, &last).await;
}

async fn tell(lines: &mpsc::Sender<Bytes>, event: &Event) {
    if let Ok(mut line) = serde_json::to_vec(event) {
        line.push(b'\n');
        // Who does not read it any more needs no line.
        let _ = lines.send(line.into()).await;
    }
}
