#![allow(clippy::unwrap_used)]
use std::path::Path;

use super::*;
use crate::images::layer::digest_of;

/// An empty archive: what can be unpacked without root.
const TAR: [u8; 1024] = [0; 1024];

fn store(dir: &Path) -> (Arc<Store>, String) {
    (Arc::new(Store::open(dir, true).unwrap()), digest_of(&TAR))
}

fn layer(diff_id: &str, most: u64) -> Expected {
    Expected { digest: None, diff_id: diff_id.to_owned(), most, origins: Origins::open() }
}

fn pieces(data: &'static [u8]) -> impl Stream<Item = io::Result<Bytes>> + Unpin {
    futures::stream::iter(data.chunks(100).map(|piece| Ok(Bytes::from_static(piece))).collect::<Vec<_>>())
}

/// However many layers drip in, no thread waits for them: others are unpacked, and all other blocking work goes on.
#[test]
fn nobody_waits_for_who_is_slow() {
    let dir = tempfile::tempdir().unwrap();
    let (store, id) = store(dir.path());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let first = || futures::stream::iter([io::Result::Ok(Bytes::from_static(&TAR[..512]))]);
        let slow = (0..100)
            .map(|_| Box::pin(unpacked(&store, first().chain(futures::stream::pending()), layer("slow", 1 << 20), |_| ())));
        let slow = futures::future::select_all(slow);
        let others = async {
            unpacked(&store, pieces(&TAR), layer(&id, 1024), |_| ()).await.unwrap();
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        };
        tokio::select! {
            _ = slow => panic!("they do not end"),
            () = others => {}
        }
    });
    assert!(store.layer_size(&id).is_some());
    assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn layers_are_as_large_as_they_may_be() {
    let check = async |most: u64, data: &'static [u8], expected: Option<&str>| {
        let dir = tempfile::tempdir().unwrap();
        let (store, id) = store(dir.path());
        let mut told = Vec::new();
        let result = unpacked(&store, pieces(data), layer(&id, most), |done| told.push(done)).await;
        match expected {
            None => assert_eq!((result.unwrap(), told.last().copied()), (0, Some(data.len() as u64))),
            Some(text) => assert!(result.unwrap_err().to_string().contains(text), "{text}"),
        }
        assert_eq!((expected.is_none(), store.layer_size(&id).is_some()), (expected.is_none(), expected.is_none()));
    };
    check(1024, &TAR, None).await;
    check(u64::MAX, &TAR, None).await;
    check(1023, &TAR, Some("larger than the 1023 bytes")).await;
    check(0, &TAR, Some("larger than the 0 bytes")).await;
    check(1024, &TAR[..1000], Some("diff ID mismatch")).await;
}

/// A pull that nobody waits for any more stops in the middle of what it unpacks.
#[test]
fn what_nobody_waits_for_is_read_no_further() {
    let wanted = CancellationToken::new();
    let end = wanted.clone().drop_guard();
    let mut source = Wanted { source: io::repeat(0), wanted };
    assert_eq!(source.read(&mut [0; 10]).unwrap(), 10);
    drop(end);
    let error = io::copy(&mut source, &mut io::sink()).unwrap_err().to_string();
    assert!(error.contains("nobody waits"), "{error}");
}

#[tokio::test]
async fn documents_are_kept_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = store(dir.path());
    let file = keep(&store, Bytes::from_static(b"{}")).await.unwrap();
    assert_eq!(recall(file).await.unwrap(), "{}");
}
