//! The documents that are in memory: loading one takes a hundred times longer than editing it.
//!
//! Each has a lock, so that the edits of one document at this PoP are made one after the other. Whoever opens one finds it
//! up to date with what is stored, whoever wrote that.
//!
//! The rule this file upholds: what is in memory is what is stored, or it goes. An edit that was not written through (the
//! store refused it, the client went away) takes the document with it; and each load edits as an actor of its own, so that
//! the number of a change that was lost is never used again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use metrics::{Gauge, counter, describe_counter, describe_gauge, gauge};
use replication::doc::{Chunk, Form};
use replication::{EntryId, Kind};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::{Document, DocumentError, Limits};
use crate::engine::documents::{Name, News};
use crate::engine::{Engine, ReadError};

/// The most documents in memory, however small.
const MAX_WARM: usize = 4_096;
/// The bytes in the name of a chunk that has one row: its form, and a hash.
const SINGLE_ROW_NAME_BYTES: usize = 17;
const LOADS: &str = "littoral_document_loads_total";

/// The bounds an operator sets.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The most bytes of a document, as it is stored.
    pub max_bytes: u64,
    /// The most operations of a document's history.
    pub max_ops: u64,
    /// About how many bytes documents in memory take.
    pub warm_bytes: u64,
}

impl Settings {
    /// What a document may be.
    pub(crate) fn limits(&self) -> Limits {
        Limits::of_node(self.max_bytes, self.max_ops)
    }
}

/// Why a document cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotOpened {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// The documents in memory.
pub(crate) struct WarmDocuments {
    engine: Engine,
    settings: Settings,
    kept: Mutex<Kept<AsyncMutex<Slot>>>,
    count: Gauge,
    bytes: Gauge,
}

/// A place for a document.
#[derive(Default)]
struct Slot(Option<Loaded>);

struct Loaded {
    document: Document,
    expires_at_s: Option<u64>,
}

impl WarmDocuments {
    /// None yet.
    pub(crate) fn new(engine: Engine, settings: Settings) -> Self {
        describe_gauge!("littoral_documents_warm", "Documents in memory");
        describe_gauge!(
            "littoral_documents_warm_bytes",
            metrics::Unit::Bytes,
            "About what documents in memory take"
        );
        describe_counter!(LOADS, "Documents read from the store");
        Self {
            engine,
            settings,
            kept: Mutex::default(),
            count: gauge!("littoral_documents_warm"),
            bytes: gauge!("littoral_documents_warm_bytes"),
        }
    }

    /// What a document may be.
    pub(crate) fn limits(&self) -> Limits {
        self.settings.limits()
    }

    /// The document of this name as of `now_s` (Unix seconds), whether there is one or not, for whoever asks alone. Needs
    /// the multi-threaded runtime.
    pub(crate) async fn open(self: &Arc<Self>, name: Name, now_s: u64) -> Result<Opened, NotOpened> {
        let slot = self.lock().slot(&name);
        let guard = slot.lock_owned().await;
        let mut opened = Opened { guard, warm: self.clone(), name, is_unwritten: false };
        tokio::task::block_in_place(|| opened.bring_up_to_date(now_s))?;
        Ok(opened)
    }

    /// Accounts for a document that is let go of, and makes room.
    fn let_go(&self, name: &Name, bytes: Option<u64>) {
        let mut kept = self.lock();
        let dropped = kept.let_go(name, bytes, self.settings.warm_bytes);
        // Under the lock, so that nobody has begun to follow it again meanwhile.
        dropped.iter().for_each(|name| self.engine.unfollow_document(name));
        self.count.set(kept.by_name.len() as f64);
        self.bytes.set(kept.bytes as f64);
    }

    fn lock(&self) -> MutexGuard<'_, Kept<AsyncMutex<Slot>>> {
        // A panic elsewhere leaves numbers that are a little off.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A document that nobody else at this PoP reads or edits meanwhile.
pub(crate) struct Opened {
    guard: OwnedMutexGuard<Slot>,
    warm: Arc<WarmDocuments>,
    name: Name,
    /// It is not what is stored.
    is_unwritten: bool,
}

impl Opened {
    /// The document.
    pub(crate) fn document(&self) -> &Document {
        &self.guard.0.as_ref().expect("it was brought up to date").document
    }

    /// The document, to be edited: unless [`Opened::written`] is called after that, it is loaded anew the next time.
    pub(crate) fn edited(&mut self) -> &mut Document {
        self.is_unwritten = true;
        &mut self.guard.0.as_mut().expect("it was brought up to date").document
    }

    /// When it expires, in Unix seconds.
    pub(crate) fn expires_at_s(&self) -> Option<u64> {
        self.guard.0.as_ref().and_then(|loaded| loaded.expires_at_s)
    }

    /// What was edited is stored, in these elements: or there was nothing to store.
    pub(crate) fn written(&mut self, elements: &[Bytes]) {
        // Word of what was just written is no news. Nothing else ever puts other bytes there.
        let news = self.warm.engine.document_news(&self.name);
        let others = news.elements.into_iter().filter(|element| !elements.contains(element));
        let others = News { elements: others.collect(), is_cut: news.is_cut };
        let taken = match &mut self.guard.0 {
            Some(loaded) => take_in(&self.warm.engine, &self.name, loaded, &others),
            None => Ok(true),
        };
        // It can be read on, and is loaded anew the next time.
        self.is_unwritten = !matches!(taken, Ok(true));
    }

    fn bring_up_to_date(&mut self, now_s: u64) -> Result<(), NotOpened> {
        let engine = &self.warm.engine;
        let is_over = |loaded: &Loaded| loaded.expires_at_s.is_some_and(|at_s| at_s <= now_s);
        if let Some(mut loaded) = self.guard.0.take().filter(|loaded| !is_over(loaded)) {
            let news = engine.document_news(&self.name);
            if take_in(engine, &self.name, &mut loaded, &news)? {
                self.guard.0 = Some(loaded);
                return Ok(());
            }
        }
        counter!(LOADS).increment(1);
        engine.follow_document(&self.name);
        let chunks = engine.document_chunks(&self.name)?;
        let expires_at_s = engine.document_expiry(&self.name)?;
        let document = Document::load(&chunks.standing, &fresh_actor(engine)?)?;
        self.guard.0 = Some(Loaded { document, expires_at_s });
        Ok(())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let is_kept = |loaded: &Loaded| !self.is_unwritten && !loaded.document.is_new();
        self.guard.0 = self.guard.0.take().filter(is_kept);
        let bytes = self.guard.0.as_ref().map(|loaded| loaded.document.memory_bytes());
        let bytes = bytes.filter(|bytes| *bytes <= self.warm.settings.warm_bytes);
        if bytes.is_none() {
            self.guard.0 = None;
        }
        self.warm.let_go(&self.name, bytes);
    }
}

/// Takes news in; false where it must be loaded anew.
fn take_in(engine: &Engine, name: &Name, loaded: &mut Loaded, news: &News) -> Result<bool, ReadError> {
    if news.is_cut || (!loaded.document.is_whole() && !news.elements.is_empty()) {
        return Ok(false);
    }
    let mut chunks = Vec::new();
    for element in &news.elements {
        let is_change = element.first() == Some(&(Form::Change as u8));
        if !is_change || element.len() != SINGLE_ROW_NAME_BYTES {
            return Ok(false);
        }
        let id = EntryId::element(name.0, Kind::Doc, name.1.clone(), element.clone());
        let Some(content) = engine.element(&id)? else { return Ok(false) };
        chunks.push(Chunk {
            form: Form::Change,
            bytes: content.0.bytes,
            dots: Vec::new(),
            elements: Vec::new(),
        });
    }
    Ok(chunks.is_empty() || loaded.document.absorb(&chunks).is_ok())
}

/// Nobody who ever edited anything: this store, and random bytes.
fn fresh_actor(engine: &Engine) -> Result<Vec<u8>, ReadError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|error| ReadError { reason: format!("no random numbers: {error}") })?;
    let replica = engine.replica().map_or([0; 16], |replica| replica.0);
    Ok([&replica[..], &random].concat())
}

/// What is kept under names, and how much: the least recently used goes first.
struct Kept<S> {
    by_name: HashMap<Name, One<S>>,
    bytes: u64,
    uses: u64,
}

struct One<S> {
    slot: Arc<S>,
    bytes: u64,
    used: u64,
}

impl<S> Default for Kept<S> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), bytes: 0, uses: 0 }
    }
}

impl<S: Default> Kept<S> {
    /// What is under this name, from now on in use.
    fn slot(&mut self, name: &Name) -> Arc<S> {
        self.uses += 1;
        let used = self.uses;
        let one = self.by_name.entry(name.clone());
        let one = one.or_insert_with(|| One { slot: Arc::default(), bytes: 0, used });
        one.used = used;
        one.slot.clone()
    }

    /// Takes note that who used this is about to let go of it, with so many bytes in it or nothing; and gives what goes.
    fn let_go(&mut self, name: &Name, bytes: Option<u64>, max_bytes: u64) -> Vec<Name> {
        let Some(one) = self.by_name.get_mut(name) else { return Vec::new() };
        self.bytes = self.bytes - one.bytes + bytes.unwrap_or(0);
        one.bytes = bytes.unwrap_or(0);
        // The last who uses it holds it beside the map.
        let is_last = Arc::strong_count(&one.slot) <= 2;
        let mut dropped = Vec::new();
        if bytes.is_none() && is_last {
            self.by_name.remove(name);
            dropped.push(name.clone());
        }
        while self.bytes > max_bytes || self.by_name.len() > MAX_WARM {
            let is_idle = |one: &&One<S>| Arc::strong_count(&one.slot) == 1;
            let idle = self.by_name.iter().filter(|(_, one)| is_idle(one));
            // What is in use stays: two who edit one document must meet at its lock.
            let Some(oldest) = idle.min_by_key(|(_, one)| one.used).map(|(name, _)| name.clone()) else {
                break;
            };
            self.bytes -= self.by_name.remove(&oldest).map_or(0, |one| one.bytes);
            dropped.push(oldest);
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use replication::NamespaceId;

    use super::*;

    fn name(key: &str) -> Name {
        (NamespaceId([1; 16]), Bytes::copy_from_slice(key.as_bytes()))
    }

    /// Uses a document of so many bytes, and gives what goes.
    fn touch(kept: &mut Kept<()>, key: &str, bytes: Option<u64>) -> Vec<Name> {
        let in_use = kept.slot(&name(key));
        let dropped = kept.let_go(&name(key), bytes, 100);
        drop(in_use);
        dropped
    }

    #[test]
    fn the_least_recently_used_goes_when_there_are_too_many_bytes() {
        let mut kept = Kept::default();
        assert!(touch(&mut kept, "a", Some(40)).is_empty());
        assert!(touch(&mut kept, "b", Some(60)).is_empty());
        assert!(touch(&mut kept, "a", Some(40)).is_empty());
        assert_eq!(touch(&mut kept, "c", Some(1)), [name("b")]);
        assert_eq!((kept.bytes, kept.by_name.len()), (41, 2));
        assert_eq!(touch(&mut kept, "a", None), [name("a")]);
        assert_eq!((kept.bytes, kept.by_name.len()), (1, 1));
    }

    #[test]
    fn the_number_of_documents_is_bounded() {
        let mut kept = Kept::default();
        for n in 0..MAX_WARM {
            assert!(touch(&mut kept, &n.to_string(), Some(0)).is_empty());
        }
        assert_eq!(touch(&mut kept, "more", Some(0)), [name("0")]);
        assert_eq!(kept.by_name.len(), MAX_WARM);
    }

    #[test]
    fn what_is_in_use_stays() {
        let mut kept = Kept::<()>::default();
        let in_use = kept.slot(&name("a"));
        let waiting = kept.slot(&name("a"));
        assert!(kept.let_go(&name("a"), None, 100).is_empty());
        assert!(kept.let_go(&name("a"), Some(90), 100).is_empty());
        assert_eq!(touch(&mut kept, "b", Some(90)), []);
        drop((in_use, waiting));
        assert_eq!(touch(&mut kept, "c", Some(90)), [name("a"), name("b")]);
    }
}
