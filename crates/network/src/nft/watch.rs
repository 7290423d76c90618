//! Notices when somebody else takes the table away, or empties it: `nft flush ruleset` in a script is enough.
//!
//! The kernel tells of every change of nf_tables and whose socket made it. What other sockets delete of our table is put back.

use std::io;

use nix::sys::socket::SockProtocol;

use crate::netlink::listener::Listener;
use crate::netlink::{attribute, replies};

/// The multicast group of nf_tables (NFNLGRP_NFTABLES is 7), as a bit.
const GROUP: u32 = 1 << 6;
/// nf_tables among the parts of netfilter, in the upper byte of a message's kind.
const NFTABLES: u16 = 10 << 8;
// linux/netfilter/nf_tables.h: NFT_MSG_DELTABLE, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET
const DELETIONS: [u16; 4] = [2, 5, 8, 11];
/// The name of the table is the first attribute of each of these messages.
const TABLE: u16 = 1;

/// Room for the changes that are still to be read, in bytes: our own are told, too, and a busy cluster makes many at once.
const ROOM: usize = 8 << 20;

/// Why the table may not be in the kernel as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// There were more changes than could be read, and a deletion may be among them.
    Missed,
    /// Somebody else has deleted something of it.
    Deleted,
}

/// Deletions from now on, in the network namespace of the calling thread.
pub struct Watch {
    listener: Listener,
    table: String,
    /// The address of the socket that makes our own changes.
    own: u32,
}

impl Watch {
    pub(super) fn new(table: &str, own: u32) -> io::Result<Self> {
        let listener = Listener::open(SockProtocol::NetlinkNetFilter, GROUP, ROOM)?;
        Ok(Self { listener, table: table.to_owned(), own })
    }

    /// Waits until somebody else has deleted something of the table, or until that cannot be told any more, since there were too
    /// many changes at once.
    pub async fn deleted(&mut self) -> io::Result<Loss> {
        let deletion = |messages: &[u8]| is_deletion(messages, &self.table, self.own).then_some(Loss::Deleted);
        self.listener.find(Loss::Missed, deletion).await
    }
}

/// Whether others than the socket `own` have deleted something of the table.
fn is_deletion(messages: &[u8], table: &str, own: u32) -> bool {
    replies(messages).any(|message| {
        let of_table = || attribute(message.payload.get(4..)?, TABLE)?.strip_suffix(&[0]);
        let deletes = message.kind & 0xff00 == NFTABLES && DELETIONS.contains(&(message.kind & 0xff));
        deletes && message.sender != own && of_table() == Some(table.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::netlink::Buffer;
    use crate::nft::Config;
    use crate::nft::table::{self, Table};

    #[test]
    fn deletions() {
        #[track_caller]
        fn check(kind: u16, name: &str, expected: bool) {
            let mut buffer = Buffer::default();
            buffer.message(kind, 0, 1, &[2, 0, 0, 0], |b| b.string(TABLE, name));
            // Messages are built with the sender 0.
            assert_eq!(
                (is_deletion(buffer.as_slice(), "knarr", 7), is_deletion(buffer.as_slice(), "knarr", 0)),
                (expected, false)
            );
        }
        check(NFTABLES | 2, "knarr", true);
        check(NFTABLES | 8, "knarr", true);
        check(NFTABLES | 2, "knarr2", false);
        check(NFTABLES | 2, "other", false);
        // A new table, and the deletion of a connection.
        check(NFTABLES, "knarr", false);
        check(1 << 8 | 2, "knarr", false);
        assert!(!is_deletion(&[1, 2, 3], "knarr", 7));
    }

    /// What somebody else deletes is noticed and put back; our own replacement of the table is not told.
    #[test]
    fn a_table_that_is_taken_away_comes_back() {
        let alone = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let ranges = vec!["10.42.0.0/24".parse().unwrap(), "fd42::/64".parse().unwrap()];
                let config = Config { bridge: "knarr0".into(), pod_cidrs: ranges, ..Config::default() };
                let table = Table::open("knarr", config, &[]).unwrap();
                let mut watch = table.watch().unwrap();
                table.put_back().unwrap();
                let patience = std::time::Duration::from_millis(300);
                assert!(tokio::time::timeout(patience, watch.deleted()).await.is_err(), "our own change");
                for _ in 0..2 {
                    table::delete("knarr").unwrap();
                    let loss = tokio::time::timeout(std::time::Duration::from_secs(60), watch.deleted()).await.unwrap();
                    assert_eq!(loss.unwrap(), Loss::Deleted);
                    assert!(!table.is_there().unwrap());
                    table.put_back().unwrap();
                    assert!(table.is_there().unwrap());
                }
            });
        });
        alone.join().unwrap();
    }
}
