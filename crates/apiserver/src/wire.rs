//! Bodies on their way into a connection.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};

use crate::body::{Body, BoxError, SLICE};

/// Bytes that show themselves in slices, for TLS copies each run on its own.
pub(crate) struct Sliced(Bytes);

impl Buf for Sliced {
    fn remaining(&self) -> usize {
        self.0.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.0
    }

    fn chunks_vectored<'a>(&'a self, slots: &mut [IoSlice<'a>]) -> usize {
        let slices = self.0.chunks(SLICE);
        let count = slices.len().min(slots.len());
        slots.iter_mut().zip(slices).for_each(|(slot, slice)| *slot = IoSlice::new(slice));
        count
    }

    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }
}

/// A body whose data are [`Sliced`].
pub(crate) struct Wire(pub(crate) Body);

impl http_body::Body for Wire {
    type Data = Sliced;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Sliced>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_ok(|frame| frame.map_data(Sliced))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(length: usize, slots: usize, expected: &[usize]) {
        let sliced = Sliced(vec![b'x'; length].into());
        let mut found = vec![IoSlice::new(&[]); slots];
        let count = sliced.chunks_vectored(&mut found);
        assert_eq!(found[..count].iter().map(|slice| slice.len()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn slices_are_short() {
        check(0, 4, &[]);
        check(SLICE, 4, &[SLICE]);
        check(2 * SLICE + 1, 4, &[SLICE, SLICE, 1]);
        check(3 * SLICE, 2, &[SLICE, SLICE]);
    }
}
