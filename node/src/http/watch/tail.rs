//! One watch, from its snapshot or cursor along the feed.
//!
//! The rule this file upholds: a cursor is given only when all that it covers has been told, in its latest state. Where that
//! cannot be had from the feed it is had from the log, and where the log does not reach, by a new snapshot after a
//! [`WatchType::Reset`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use littoral::api::watch::{WatchEvent, WatchType};
use metrics::counter;
use replication::read::shown::Shown;
use replication::read::tail::{LogPage, StatePage, log, state, states};
use replication::{Body, Dot, Entry, EntryId, Kind, Position, ReplicaId, StoreError, keys};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::event::{is_in_snapshot, told};
use super::outlet::{Gone, Outlet, json};
use super::standing::Standing;
use super::watched::Watched;
use crate::cursor::Cursor;
use crate::engine::feed::{Batch, Item, Next, Subscription};
use crate::engine::{Engine, ReadError};
use crate::http::attributes::now_s;

/// A connection on which nothing is told hears from us after this long.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// How often it is looked at whether the watch may go on.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Rows read at a time: the thread does nothing else meanwhile.
const PAGE_ROWS: usize = 500;
/// Bytes of states read at a time, about.
const PAGE_BYTES: usize = 256 << 10;
/// The most states told before their turn that are remembered, so that they are not told again. Beyond that some are.
const MAX_AHEAD: usize = 16_384;

/// Why a watch is over.
enum Over {
    Gone,
    Because(String),
}

impl From<Gone> for Over {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<ReadError> for Over {
    fn from(error: ReadError) -> Self {
        Self::Because(error.reason)
    }
}

/// Where a watch begins.
pub(super) enum Start {
    Snapshot,
    /// Without what is there already.
    Now,
    Cursor(Cursor),
}

/// A watch under way.
pub(super) struct Tail {
    pub(super) engine: Engine,
    pub(super) subscription: Subscription,
    pub(super) watched: Watched,
    pub(super) standing: Standing,
    pub(super) outlet: Outlet,
    /// When the node stops.
    pub(super) is_ending: CancellationToken,
    /// All of this was told.
    pub(super) cursor: Cursor,
    /// A cursor of a PoP that held more than this one: what it covers is not told again.
    pub(super) foreign: Option<Cursor>,
    pub(super) ahead: Ahead,
}

/// Events of states that were told though the cursor does not cover them yet; good up to a place in the feed.
#[derive(Default)]
pub(super) struct Ahead {
    states: HashMap<EntryId, Vec<Dot>>,
    until: u64,
}

impl Ahead {
    /// Whether this state is new to the watcher, who may have been told a later one.
    fn is_new(&self, id: &EntryId, entry: &Entry) -> bool {
        let Some(told) = self.states.get(id) else { return true };
        match entry.body {
            Body::Value(_) | Body::Tombstone => told.iter().all(|told| *told < entry.dot),
            _ => !entry
                .all_dots(|dot| told.iter().any(|told| told.replica == dot.replica && told.hlc >= dot.hlc)),
        }
    }

    fn remember(&mut self, id: &EntryId, entry: &Entry) {
        if self.states.len() < MAX_AHEAD || self.states.contains_key(id) {
            self.states.insert(id.clone(), entry.dots());
        }
    }
}

/// A document is told of once in a snapshot, however many chunks it has: the last that was.
#[derive(Default)]
struct Once(Option<Bytes>);

impl Once {
    fn is_done(&self, id: &EntryId) -> bool {
        id.kind == Kind::Doc && !id.element.is_empty() && self.0.as_ref() == Some(&id.key)
    }

    fn done(&mut self, id: &EntryId) {
        if id.kind == Kind::Doc && !id.element.is_empty() {
            self.0 = Some(id.key.clone());
        }
    }
}

impl Tail {
    /// Tells until the client goes, or may not be told any more.
    pub(super) async fn run(mut self, start: Start) {
        let is_ending = self.is_ending.clone();
        let over = tokio::select! {
            biased;
            () = is_ending.cancelled() => Over::Because("this node is stopping".into()),
            over = self.follow(start) => over,
        };
        if let Over::Because(reason) = over {
            let mut event = WatchEvent::of(WatchType::End);
            event.reason = Some(reason);
            // Whoever has gone needs no word.
            let _ = self.outlet.tell_event(&event).await;
            let _ = self.outlet.flush().await;
        }
    }

    async fn follow(&mut self, start: Start) -> Over {
        let begun = match start {
            Start::Snapshot => self.snapshot().await,
            Start::Now => self.begin_now().await,
            Start::Cursor(cursor) => {
                self.cursor = cursor;
                self.resume().await
            }
        };
        match begun {
            Ok(()) => match self.live().await {
                Ok(never) => match never {},
                Err(over) => over,
            },
            Err(over) => over,
        }
    }

    async fn begin_now(&mut self) -> Result<(), Over> {
        self.cursor = Cursor::of(&self.subscription.vector);
        self.sync().await
    }

    /// Tells all that is there.
    async fn snapshot(&mut self) -> Result<(), Over> {
        self.ahead = Ahead::default();
        self.foreign = None;
        for range in self.watched.ranges() {
            let mut from = Some(range.clone());
            let mut documents = Once::default();
            while let Some(first) = from {
                let page = self.states(&range, &first)?;
                for (id, entry) in &page.states {
                    let is_new = self.watched.covers(id) && !documents.is_done(id);
                    if is_new && self.tell_present(id, entry).await? {
                        documents.done(id);
                    }
                }
                from = page.next;
                self.look().await?;
            }
        }
        self.cursor = Cursor::of(&self.subscription.vector);
        self.sync().await
    }

    /// Gives whether there was something to tell.
    async fn tell_present(&mut self, id: &EntryId, entry: &Entry) -> Result<bool, Over> {
        if !entry.all_dots(|dot| self.subscription.vector.covers(dot)) {
            self.ahead.remember(id, entry);
        }
        let Some(mut event) = self.event(id, entry)?.filter(is_in_snapshot) else { return Ok(false) };
        if event.what == WatchType::Clear {
            event.what = WatchType::Describe;
        }
        event.change_base64 = None;
        self.outlet.tell_event(&event).await?;
        Ok(true)
    }

    async fn sync(&mut self) -> Result<(), Over> {
        // What was read may be committed and not in the feed yet.
        if !self.ahead.states.is_empty() {
            self.ahead.until = self.subscription.end().await?;
        }
        self.outlet.tell_event(&WatchEvent::of(WatchType::Sync)).await?;
        self.reached().await
    }

    /// Tells what was written beyond the cursor, from the log; or, where that does not reach, everything.
    async fn resume(&mut self) -> Result<(), Over> {
        self.ahead = Ahead::default();
        if self.tell_log().await? {
            let is_within = self.cursor.is_within(&self.subscription.vector);
            self.foreign = (!is_within).then(|| self.cursor.clone());
            self.cursor.join(&self.subscription.vector);
            return self.sync().await;
        }
        let mut event = WatchEvent::of(WatchType::Reset);
        let reason = "the log does not reach back to this cursor; forget all entries, a new snapshot follows";
        event.reason = Some(reason.into());
        self.outlet.tell_event(&event).await?;
        self.subscription.begin_again().await?;
        self.snapshot().await
    }

    /// Gives whether the log was whole.
    async fn tell_log(&mut self) -> Result<bool, Over> {
        let origins: Vec<_> = self.subscription.vector.iter().collect();
        for (origin, upto) in origins {
            let mut after = self.cursor.position(origin);
            while after.hlc < upto.hlc && after.ops != upto.ops {
                let Some(page) = self.log(origin, (after, upto))? else { return Ok(false) };
                for (hlc, id) in &page.rows {
                    let Some(entry) = self.state(id)? else { return Ok(false) };
                    let dot = Dot { hlc: *hlc, replica: origin };
                    if self.is_place_of(dot, id, &entry) {
                        self.tell_state(id, &entry).await?;
                    }
                }
                self.look().await?;
                if page.is_last {
                    break;
                }
                after = page.reached;
            }
        }
        Ok(true)
    }

    /// Whether the state is told at the log row of this event. It is told once, by the latest of its events that is not told
    /// yet; a state that has run ahead of the claims at the first row that leads to it.
    fn is_place_of(&mut self, dot: Dot, id: &EntryId, entry: &Entry) -> bool {
        let vector = &self.subscription.vector;
        if !entry.all_dots(|dot| vector.covers(dot)) {
            let is_new = self.ahead.is_new(id, entry);
            self.ahead.remember(id, entry);
            return is_new;
        }
        let latest = entry.dots().into_iter().filter(|dot| !self.cursor.covers(*dot)).max();
        match latest {
            Some(latest) => latest == dot,
            // Of a value another state has won, which was told. Of others, what this event has said may be dropped by now.
            None => !matches!(entry.body, Body::Value(_) | Body::Tombstone),
        }
    }

    /// Follows the feed.
    async fn live(&mut self) -> Result<std::convert::Infallible, Over> {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = looks.tick() => self.look_and_beat().await?,
                () = self.outlet.gone() => return Err(Over::Gone),
                () = self.subscription.moved() => self.take_next().await?,
            }
        }
    }

    async fn take_next(&mut self) -> Result<(), Over> {
        match self.subscription.next() {
            Next::Batch(batch) => self.tell_batch(&batch).await,
            Next::Behind => self.catch_up().await,
        }
    }

    async fn catch_up(&mut self) -> Result<(), Over> {
        counter!("littoral_watch_behind_total").increment(1);
        self.outlet.tell_event(&WatchEvent::of(WatchType::Behind)).await?;
        self.reached().await?;
        self.subscription.begin_again().await?;
        self.resume().await
    }

    async fn tell_batch(&mut self, batch: &Arc<Batch>) -> Result<(), Over> {
        if self.subscription.position() > self.ahead.until {
            self.ahead.states.clear();
        }
        for item in &batch.items {
            let is_told = |cursor: &Cursor| cursor.covers_all(&item.entry);
            let is_news = self.watched.covers(&item.id)
                && self.ahead.is_new(&item.id, &item.entry)
                && !self.foreign.as_ref().is_some_and(is_told);
            if is_news {
                self.tell_item(item).await?;
            }
        }
        if let Some(vector) = &batch.vector {
            self.cursor.join(vector);
            if self.foreign.as_ref().is_some_and(|foreign| foreign.is_within(vector)) {
                self.foreign = None;
            }
            if self.outlet.awaits_cursor() {
                self.reached().await?;
            }
        }
        Ok(())
    }

    async fn tell_item(&mut self, item: &Item) -> Result<(), Over> {
        let text = match item.told.get() {
            Some(text) => text,
            None => {
                let text = self.event(&item.id, &item.entry)?.map(|event| json(&event));
                item.told.get_or_init(|| text)
            }
        };
        if let Some(text) = text {
            self.outlet.tell(text).await?;
        }
        self.tell_survivors(&item.id, &item.entry).await
    }

    async fn tell_state(&mut self, id: &EntryId, entry: &Entry) -> Result<(), Over> {
        if let Some(event) = self.event(id, entry)? {
            self.outlet.tell_event(&event).await?;
        }
        self.tell_survivors(id, entry).await
    }

    /// After a set or map was emptied: the elements that are there all the same. After a document was deleted: whether it is there
    /// all the same.
    async fn tell_survivors(&mut self, id: &EntryId, entry: &Entry) -> Result<(), Over> {
        if !matches!(&entry.body, Body::Head(head) if !head.clears.is_empty()) {
            return Ok(());
        }
        let range = keys::entry(id);
        let mut from = Some([&range[..], &[0]].concat());
        while let Some(first) = from {
            let page = self.states(&range, &first)?;
            for (id, entry) in &page.states {
                let Some(mut event) = self.event(id, entry)?.filter(|event| event.what == WatchType::Put)
                else {
                    continue;
                };
                event.change_base64 = None;
                self.outlet.tell_event(&event).await?;
                if id.kind == Kind::Doc {
                    return Ok(());
                }
            }
            from = page.next;
        }
        Ok(())
    }

    async fn reached(&mut self) -> Result<(), Over> {
        let cursor = self.cursor.encode(&self.watched.to_bytes());
        Ok(self.outlet.reached(&cursor).await?)
    }

    async fn look_and_beat(&mut self) -> Result<(), Over> {
        self.look().await?;
        if self.outlet.written() + HEARTBEAT_EVERY > Instant::now() {
            return Ok(());
        }
        if let Some(vector) = self.subscription.claims() {
            self.cursor.join(&vector);
        }
        let cursor = self.cursor.encode(&self.watched.to_bytes());
        Ok(self.outlet.heartbeat(&cursor).await?)
    }

    /// Whether the watch may go on.
    async fn look(&mut self) -> Result<(), Over> {
        self.engine.store()?;
        self.standing.check().map_err(Over::Because)?;
        // Pages follow each other without end where a client is quick.
        tokio::task::yield_now().await;
        Ok(())
    }

    fn event(&self, id: &EntryId, entry: &Entry) -> Result<Option<WatchEvent>, Over> {
        self.read(|store| told(store, id, entry, now_s()))
    }

    fn states(&self, range: &[u8], from: &[u8]) -> Result<StatePage, Over> {
        tokio::task::block_in_place(|| self.read(|store| states(store, range, from, (PAGE_ROWS, PAGE_BYTES))))
    }

    fn log(&self, origin: ReplicaId, part: (Position, Position)) -> Result<Option<LogPage>, Over> {
        let wanted = |id: &EntryId| self.watched.covers(id);
        tokio::task::block_in_place(|| self.read(|store| log(store, origin, part, &wanted, PAGE_ROWS)))
    }

    fn state(&self, id: &EntryId) -> Result<Option<Entry>, Over> {
        self.read(|store| state(store, id))
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&Shown<'_, crate::storage::SledStore>) -> Result<T, StoreError>,
    ) -> Result<T, Over> {
        let store = self.engine.store()?;
        read(&store).map_err(|error| self.engine.states_failed(error).into())
    }
}

#[cfg(test)]
mod tests {
    use replication::kinds::{Counter, CounterPart};
    use replication::{Hlc, NamespaceId};

    use super::*;

    fn dot(ms: u64, replica: u8) -> Dot {
        Dot { hlc: Hlc::new(ms, 0), replica: ReplicaId([replica; 16]) }
    }

    /// A value was read twice, each time ahead of the feed; then the feed brought the first of the two, and it was told again.
    #[test]
    fn what_is_older_than_was_told_is_not_told_again() {
        let id = EntryId::value(NamespaceId([9; 16]), "k");
        let state = |ms, replica| Entry::first(dot(ms, replica), Body::Tombstone);
        let mut ahead = Ahead::default();
        assert!(ahead.is_new(&id, &state(1, 1)));
        ahead.remember(&id, &state(3, 1));
        ahead.remember(&id, &state(4, 2));
        for (ms, replica, is_new) in [(3, 1, false), (4, 1, false), (4, 2, false), (4, 3, true), (5, 1, true)]
        {
            assert_eq!(ahead.is_new(&id, &state(ms, replica)), is_new, "{ms} of {replica}");
        }
    }

    #[test]
    fn of_what_has_parts_each_replicas_events_are_told_for_themselves() {
        let id = EntryId::whole(NamespaceId([9; 16]), Kind::Counter, "k");
        let state = |events: &[(u64, u8)]| {
            let part = |(ms, replica): &(u64, u8)| {
                (dot(1, *replica), CounterPart { hlc: Hlc::new(*ms, 0), ..CounterPart::default() })
            };
            let counter = Counter { parts: events.iter().map(part).collect(), ..Counter::default() };
            Entry::first(dot(events[0].0, events[0].1), Body::Counter(counter))
        };
        let mut ahead = Ahead::default();
        ahead.remember(&id, &state(&[(3, 1), (5, 2)]));
        assert!(!ahead.is_new(&id, &state(&[(3, 1)])));
        assert!(!ahead.is_new(&id, &state(&[(2, 1), (5, 2)])));
        assert!(ahead.is_new(&id, &state(&[(4, 1)])), "though another's is later");
        assert!(ahead.is_new(&id, &state(&[(3, 1), (4, 3)])));
    }
}
