//! Turns at something costly that is done for one at a time: whoever wants it often waits for himself, and not everybody for him.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Most that wait for one owner.
const MOST: usize = 32;

/// The owners take turns, and of one owner's those that came first.
pub struct Turns(Mutex<State>);

struct State {
    is_taken: bool,
    /// Who waits, by owner; the next one first.
    waiting: VecDeque<(String, Waiting)>,
}

type Waiting = VecDeque<oneshot::Sender<Turn>>;

fn forget_gone(waiting: &mut Waiting) {
    waiting.retain(|one| !one.is_closed());
}

impl State {
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        loop {
            let (owner, mut queue) = self.waiting.pop_front()?;
            forget_gone(&mut queue);
            let Some(next) = queue.pop_front() else { continue };
            if !queue.is_empty() {
                self.waiting.push_back((owner, queue));
            }
            return Some(next);
        }
    }
}

/// A turn, which ends when this is dropped.
pub struct Turn(&'static Turns);

/// There is no room for one more who waits.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many wait for their turn")]
pub struct TooMany;

impl Turns {
    /// Nobody has it.
    pub const fn free() -> Self {
        Self(Mutex::new(State { is_taken: false, waiting: VecDeque::new() }))
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// Too many wait for the owner's already.
    pub async fn take(&'static self, owner: &str) -> Result<Turn, TooMany> {
        let given = {
            let mut state = self.0.lock();
            if !state.is_taken {
                state.is_taken = true;
                return Ok(Turn(self));
            }
            let (give, given) = oneshot::channel();
            match state.waiting.iter_mut().find(|(of, _)| of == owner) {
                Some((_, queue)) => {
                    forget_gone(queue);
                    if queue.len() >= MOST {
                        return Err(TooMany);
                    }
                    queue.push_back(give);
                }
                None => state.waiting.push_back((owner.to_owned(), VecDeque::from([give]))),
            }
            given
        };
        given.await.map_err(|_| TooMany)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let turns = self.0;
        let mut turn = Self(turns);
        loop {
            let next = {
                let mut state = turns.0.lock();
                let next = state.next();
                state.is_taken = next.is_some();
                next
            };
            // It ends here, or with whoever has it next: one that nobody takes goes on to the one behind.
            let Some(next) = next else { return std::mem::forget(turn) };
            match next.send(turn) {
                Ok(()) => return,
                Err(back) => turn = back,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn owners_take_turns() {
        static TURNS: Turns = Turns::free();
        let first = TURNS.take("busy").await.unwrap();
        let mut busy: Vec<_> = (0..MOST).map(|_| Box::pin(TURNS.take("busy"))).collect();
        for waiting in &mut busy {
            assert!(waiting.now_or_never().is_none());
        }
        assert_eq!(TURNS.take("busy").now_or_never().unwrap().err(), Some(TooMany));
        let mut other = Box::pin(TURNS.take("other"));
        assert!((&mut other).now_or_never().is_none());
        // One that has gone waits no more, and gets no turn.
        drop(busy.remove(0));
        drop(first);
        let second = (&mut busy[0]).now_or_never().unwrap().unwrap();
        assert!((&mut other).now_or_never().is_none());
        drop(second);
        let third = other.now_or_never().unwrap().unwrap();
        assert!((&mut busy[1]).now_or_never().is_none());
        drop((third, busy));
        drop(TURNS.take("busy").now_or_never().unwrap().unwrap());
        assert!(TURNS.take("other").now_or_never().unwrap().is_ok());
    }
}
