//! How fast a stranger has to send.

use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};

/// How long bytes of somebody else are waited for. What their reader takes for itself does not count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Time that is waited in all for a stream of no bytes.
    patience: Duration,
    /// Bytes for which there is one more second.
    slowest: u64,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(super) fn new(patience: Duration, slowest: u64) -> Self {
        Self { patience, slowest, waited: Duration::ZERO, bytes: 0 }
    }

    /// How long the next piece may take.
    fn left(&self) -> Duration {
        let more = Duration::from_millis(self.bytes.saturating_mul(1000) / self.slowest);
        (self.patience + more).saturating_sub(self.waited)
    }

    /// So many bytes have come after so long.
    fn came(&mut self, bytes: usize, waited: Duration) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.waited += waited;
    }
}

/// The stream, which fails when its bytes are waited for too long.
pub(super) fn paced<E, S>(stream: S, pace: Pace) -> BoxStream<'static, io::Result<Bytes>>
where
    E: Display + 'static,
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
{
    let next = |(stream, mut pace): (Option<S>, Pace)| async move {
        let mut stream = stream?;
        let since = Instant::now();
        match tokio::time::timeout(pace.left(), StreamExt::next(&mut stream)).await {
            Ok(piece) => {
                let piece = piece?.map_err(|error: E| io::Error::other(error.to_string()));
                pace.came(piece.as_ref().map_or(0, Bytes::len), since.elapsed());
                Some((piece, (Some(stream), pace)))
            }
            Err(_) => {
                let late = io::Error::new(io::ErrorKind::TimedOut, format!("it sends too slowly: {} bytes so far", pace.bytes));
                Some((Err(late), (None, pace)))
            }
        }
    };
    futures::stream::unfold((Some(stream), pace), next).boxed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bytes_are_waited_for_at_a_rate() {
        let check = |pieces: &[(usize, u64)], expected: u64| {
            let mut pace = Pace::new(Duration::from_secs(10), 1000);
            pieces.iter().for_each(|(bytes, seconds)| pace.came(*bytes, Duration::from_secs(*seconds)));
            assert_eq!(pace.left().as_secs(), expected, "{pieces:?}");
        };
        check(&[], 10);
        check(&[(1, 4), (1, 4)], 2);
        check(&[(1, 9), (1, 3)], 0);
        check(&[(1000, 1), (1000, 1)], 10);
        check(&[(10_000, 0)], 20);
    }

    #[tokio::test]
    async fn who_stalls_is_given_up() {
        let none = || Pace::new(Duration::ZERO, 1);
        let mut stalls = paced(futures::stream::pending::<io::Result<Bytes>>(), none());
        assert_eq!(stalls.next().await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(stalls.next().await.is_none());
        let pieces = futures::stream::iter([io::Result::Ok(Bytes::from_static(b"a"))]);
        assert_eq!(paced(pieces, none()).next().await.unwrap().unwrap(), "a");
    }
}
