//! Concurrent writers against one PoP, each with keys of its own, which note in a [`Ledger`] what they
//! issued and what was acknowledged; and the comparison of a PoP with the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use super::rest::{Answer, Rest};
use crate::ledger::{Acked, Change, Ledger};
use crate::random::Random;

/// How much of what is wrong a panic shows.
const SHOWN_WRONG: usize = 5;
/// Reads under way at once in [`verify`].
const READERS: usize = 16;

/// The writers at work. They end when asked, or at the first write that is not acknowledged.
pub struct Load {
    writers: JoinSet<Stopped>,
    is_over: Arc<AtomicBool>,
}

/// Why a writer ended.
#[derive(Debug)]
pub enum Stopped {
    /// It was asked to.
    Asked,
    /// The node refused a write.
    Refused(Answer),
    /// There was no answer, so the write may or may not have been done.
    Unanswered(reqwest::Error),
}

impl Load {
    /// Starts `writers` writers, each with `keys` keys.
    pub fn start(rest: &Rest, ledger: &Arc<Ledger>, writers: usize, keys: u64) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for writer in 0..writers {
            tasks.spawn(write(rest.clone(), ledger.clone(), is_over.clone(), writer, keys));
        }
        Self { writers: tasks, is_over }
    }

    /// Waits until every writer has ended by itself.
    pub async fn ended(self) -> Vec<Stopped> {
        self.writers.join_all().await
    }

    /// Asks the writers to end after the write they are at, and waits for it.
    pub async fn stop(self) -> Vec<Stopped> {
        self.is_over.store(true, Ordering::SeqCst);
        self.ended().await
    }
}

async fn write(
    rest: Rest,
    ledger: Arc<Ledger>,
    is_over: Arc<AtomicBool>,
    writer: usize,
    keys: u64,
) -> Stopped {
    let mut random = Random::new(Random::fresh_seed());
    while !is_over.load(Ordering::SeqCst) {
        let key = format!("w{writer}-k{}", random.below(keys));
        let (number, change) = ledger.issue(&key);
        let answer = match change {
            Change::Put(value) => rest.put(&key, value).await,
            Change::Delete => rest.delete(&key).await,
        };
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => ledger.ack(&key, number),
            Ok(answer) => return Stopped::Refused(answer),
            Err(error) => return Stopped::Unanswered(error),
        }
    }
    Stopped::Asked
}

/// What reading every key has shown.
#[derive(Debug, Default)]
pub struct Verdict {
    /// An acknowledged write that is gone, a value that nobody wrote, a read that failed.
    pub wrong: Vec<String>,
    /// The writes that explain what was read.
    pub seen: Acked,
}

impl Verdict {
    /// Panics where anything is wrong; says how much, and shows some of it.
    pub fn assert_right(&self, when: &str) {
        let shown = &self.wrong[..self.wrong.len().min(SHOWN_WRONG)];
        assert!(
            shown.is_empty(),
            "{when}, {} of {} keys: {shown:#?}",
            self.wrong.len(),
            self.wrong.len() + self.seen.len()
        );
    }
}

/// Reads every key of `acked`.
pub async fn verify(rest: &Rest, ledger: &Arc<Ledger>, acked: &Acked) -> Verdict {
    let acked = Arc::new(acked.clone());
    let keys: Arc<Vec<String>> = Arc::new(acked.keys().cloned().collect());
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let (rest, ledger, acked, keys) = (rest.clone(), ledger.clone(), acked.clone(), keys.clone());
        readers.spawn(async move {
            let mut part = Verdict::default();
            for key in keys.iter().skip(reader).step_by(READERS) {
                let explained = match rest.read(key).await {
                    Ok(found) => ledger.check(&acked, key, found.as_deref()),
                    Err(error) => Err(format!("{key}: it cannot be read: {error:#}")),
                };
                match explained {
                    Ok(number) => drop(part.seen.insert(key.clone(), number)),
                    Err(what) => part.wrong.push(what),
                }
            }
            part
        });
    }
    readers.join_all().await.into_iter().fold(Verdict::default(), |mut whole, part| {
        whole.wrong.extend(part.wrong);
        whole.seen.extend(part.seen);
        whole
    })
}
