//! A document's copy in an app, which is an Automerge document: each side gets what it lacks, and nothing else.
//!
//! Which changes both sides have is asked for by their hashes: a PoP that is asked for what comes after some names those that
//! it does not have. All that one with a known change was made on top of is known, too, and nothing that was made on top of
//! an unknown one is; so a few questions settle thousands of changes.
//!
//! The rule this file upholds: what is settled is never asked for again, and what both have is not sent.

use std::collections::{BTreeSet, HashMap};

use ::automerge::{AutoCommit, ChangeHash};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use reqwest::Method;

use super::{Doc, heads_of};
use crate::api::docs::{DocWritten, MAX_BODY_CHANGES, MAX_DOC_BODY_BYTES, MAX_HEADS};
use crate::api::watch::{WatchEvent, WatchKind, WatchType};
use crate::error::Error;
use crate::request::Request;

/// The most questions about which changes both sides have: each settles most of what is open.
const MAX_QUESTIONS: usize = 32;
/// The number of the error that names changes which the PoP does not have.
const UNKNOWN_CHANGES: u32 = 20_030;
/// The hexadecimal digits of a change's name.
const HASH_DIGITS: usize = 64;

impl Doc {
    /// Takes into a copy the changes that it lacks of this PoP's document, and gives how many there were. Where there is no
    /// document, it takes none. What is not committed yet is committed. With the feature `automerge`.
    ///
    /// ```no_run
    /// # async fn example(kv: littoral::Namespace) -> Result<(), Box<dyn std::error::Error>> {
    /// use automerge::{AutoCommit, ROOT, transaction::Transactable};
    ///
    /// let page = kv.doc("page:7");
    /// let mut copy = AutoCommit::new();
    /// page.pull(&mut copy).await?;
    /// copy.put(ROOT, "title", "Tides")?;
    /// // As often as you like: what is there is not sent.
    /// page.push(&mut copy).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Decode`] for changes that Automerge does not take, of which none may be in the copy then.
    pub async fn pull(&self, copy: &mut AutoCommit) -> Result<usize, Error> {
        let before = copy.get_heads();
        // Fewer heads than there are bring more than is lacking, and that is passed over.
        let mut asked: Vec<_> = before.iter().copied().take(MAX_HEADS).collect();
        let mut common: Option<Common> = None;
        for question in 1.. {
            match self.changes(&texts(&asked)).await {
                Ok(None) => return Ok(0),
                Ok(Some((changes, _))) => return self.take(copy, &before, &changes),
                Err(error) if error.code() == Some(UNKNOWN_CHANGES) && question <= MAX_QUESTIONS => {
                    let common = common.get_or_insert_with(|| Common::of(copy));
                    common.note(&asked, &unknown_of(&error, &asked));
                    asked = common.question(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(0)
    }

    /// Takes into a copy what an event of a watch tells of this document ([`Doc::watch`]), and gives how many changes the copy
    /// lacked: the change in the event, or, where that is not all that the copy lacks, as [`Doc::pull`]. Of what an event tells
    /// of others it takes none. What is not committed yet is committed. With the feature `automerge`.
    ///
    /// ```no_run
    /// # async fn example(kv: littoral::Namespace) -> Result<(), littoral::Error> {
    /// let page = kv.doc("page:7");
    /// let mut copy = automerge::AutoCommit::new();
    /// let mut watch = page.watch();
    /// loop {
    ///     // The snapshot brings the document, and after that each event a change.
    ///     let event = watch.next().await?;
    ///     if page.pull_event(&mut copy, &event).await? > 0 {
    ///         println!("{} changes so far", copy.get_changes_meta(&[]).len());
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Doc::pull`].
    pub async fn pull_event(&self, copy: &mut AutoCommit, event: &WatchEvent) -> Result<usize, Error> {
        let is_of_this = event.kind == Some(WatchKind::Doc) && event.key.as_deref() == Some(self.key());
        if !is_of_this || event.what != WatchType::Put {
            return Ok(0);
        }
        let before = copy.get_heads();
        if let Some(change) = &event.change_base64 {
            let bytes = STANDARD.decode(change).map_err(|error| self.not_taken(error))?;
            let taken = self.take(copy, &before, &bytes.into())?;
            // It may be made on top of others that are told later, or were never told here.
            if copy.get_missing_deps(&[]).is_empty() {
                return Ok(taken);
            }
        }
        self.pull(copy).await?;
        Ok(copy.get_changes_meta(&before).len())
    }

    /// Sends the changes of a copy that this PoP's document lacks, and gives the receipt of the last of them, and the
    /// document's heads: no receipt where it lacks none. What is not committed yet is committed. Where there is no
    /// document, it is made. With the feature `automerge`.
    ///
    /// # Errors
    /// As [`Doc::apply`]. Changes are sent in several requests where they are many; what has gone before an error stays.
    pub async fn push(&self, copy: &mut AutoCommit) -> Result<DocWritten, Error> {
        let heads = copy.get_heads();
        let mut lacking = Common::of(copy);
        match self.heads_if_it_has(&heads).await {
            Ok(Some(heads)) => return Ok(DocWritten { receipt: None, heads }),
            // There is no document.
            Ok(None) => {}
            Err(Error::Api { status: 409, .. }) => self.ask_for_common(&heads, &mut lacking).await?,
            Err(error) => return Err(error),
        }
        let mut written = DocWritten { receipt: None, heads: Vec::new() };
        for body in bodies(copy, &lacking.unknown()) {
            let DocWritten { receipt, heads } = self.apply(body).await?;
            written = DocWritten { receipt: receipt.or(written.receipt), heads };
        }
        Ok(written)
    }

    /// Asks until it is settled which changes the PoP has, of a copy with these heads, of which it lacks some.
    async fn ask_for_common(&self, heads: &[ChangeHash], common: &mut Common) -> Result<(), Error> {
        // One that it lacks among those asked for keeps the answer short: it is an error then.
        let mut lacked = heads.first().copied().filter(|_| heads.len() == 1);
        let mut asked: Vec<_> = heads.iter().copied().take(MAX_HEADS).collect();
        if let Some(head) = lacked {
            common.note(&[head], &[head].into());
            asked = common.question(lacked);
        }
        for question in 1.. {
            if common.is_settled() || question > MAX_QUESTIONS {
                break;
            }
            match self.changes(&texts(&asked)).await {
                // It has got them meanwhile.
                Ok(Some(_)) => common.note(&asked, &BTreeSet::new()),
                Ok(None) => break,
                Err(error) if error.code() == Some(UNKNOWN_CHANGES) => {
                    let unknown = unknown_of(&error, &asked);
                    common.note(&asked, &unknown);
                    lacked = lacked.or(unknown.first().copied());
                }
                Err(error) => return Err(error),
            }
            asked = common.question(lacked);
        }
        Ok(())
    }

    /// The document's heads, where it has all of these changes, and else an error; `None` where there is no document.
    async fn heads_if_it_has(&self, changes: &[ChangeHash]) -> Result<Option<Vec<String>>, Error> {
        if changes.len() > MAX_HEADS {
            let message = "too many changes to be asked for at once".to_owned();
            return Err(Error::Api { status: 409, code: UNKNOWN_CHANGES, message });
        }
        let mut request = Request::new(Method::HEAD, self.part("changes")?);
        if !changes.is_empty() {
            request = request.query("since", texts(changes).join(","));
        }
        match self.whole.namespace.account.client.fetch(&request).await {
            // An answer to HEAD has no words.
            Err(Error::Api { status: 404, .. }) => Ok(None),
            answer => Ok(Some(heads_of(&answer?.headers))),
        }
    }

    fn take(&self, copy: &mut AutoCommit, before: &[ChangeHash], changes: &Bytes) -> Result<usize, Error> {
        if !changes.is_empty() {
            copy.load_incremental(changes).map_err(|error| self.not_taken(error))?;
        }
        Ok(copy.get_changes_meta(before).len())
    }

    fn not_taken(&self, error: impl std::fmt::Display) -> Error {
        let url = self.part("changes").unwrap_or_default();
        Error::Decode { url, reason: format!("Automerge does not take the changes: {error}") }
    }
}

/// What is known of one of a copy's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Open,
    /// The PoP has it.
    Both,
    /// The PoP lacks it.
    Copy,
}

/// A copy's changes, and which of them the PoP has.
struct Common {
    /// Each after those it was made on top of, which are given by their places.
    changes: Vec<(ChangeHash, Vec<usize>, At)>,
    places: HashMap<ChangeHash, usize>,
}

impl Common {
    fn of(copy: &mut AutoCommit) -> Self {
        let (mut changes, mut places) = (Vec::new(), HashMap::new());
        for meta in copy.get_changes_meta(&[]) {
            let deps = meta.deps.iter().filter_map(|dep| places.get(dep).copied()).collect();
            places.insert(meta.hash, changes.len());
            changes.push((meta.hash, deps, At::Open));
        }
        Self { changes, places }
    }

    /// The PoP has all that was asked for but what it named.
    fn note(&mut self, asked: &[ChangeHash], unknown: &BTreeSet<ChangeHash>) {
        for hash in asked {
            if let Some(place) = self.places.get(hash) {
                self.changes[*place].2 = if unknown.contains(hash) { At::Copy } else { At::Both };
            }
        }
        for place in 0..self.changes.len() {
            let is_on_lacking = self.changes[place].1.iter().any(|dep| self.changes[*dep].2 == At::Copy);
            if is_on_lacking {
                self.changes[place].2 = At::Copy;
            }
        }
        for place in (0..self.changes.len()).rev() {
            if self.changes[place].2 == At::Both {
                for dep in self.changes[place].1.clone() {
                    self.changes[dep].2 = At::Both;
                }
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.changes.iter().all(|(_, _, at)| *at != At::Open)
    }

    /// What the PoP lacks, in order; what is open, too.
    fn unknown(&self) -> Vec<ChangeHash> {
        self.changes.iter().filter(|(_, _, at)| *at != At::Both).map(|(hash, ..)| *hash).collect()
    }

    /// Changes to ask for, as many as may be asked for at once: the latest that the PoP may have, and of those that are open
    /// some at even distances. The one given, which it lacks, is among them.
    fn question(&self, lacked: Option<ChangeHash>) -> Vec<ChangeHash> {
        let mut is_latest: Vec<_> = self.changes.iter().map(|(_, _, at)| *at != At::Copy).collect();
        for (_, deps, at) in &self.changes {
            if *at != At::Copy {
                deps.iter().for_each(|dep| is_latest[*dep] = false);
            }
        }
        let latest = (0..self.changes.len()).filter(|place| is_latest[*place]);
        let open: Vec<_> = (0..self.changes.len()).filter(|at| self.changes[*at].2 == At::Open).collect();
        let hash = |place: usize| self.changes[place].0;
        let mut asked: BTreeSet<ChangeHash> = lacked.into_iter().collect();
        asked.extend(latest.rev().take(MAX_HEADS / 2).map(hash));
        let room = (MAX_HEADS - asked.len()).min(open.len());
        asked.extend((0..room).map(|nth| hash(open[nth * open.len() / room])));
        asked.into_iter().collect()
    }
}

/// Which of these the PoP has named; all of them where it has named none.
fn unknown_of(error: &Error, asked: &[ChangeHash]) -> BTreeSet<ChangeHash> {
    let asked: BTreeSet<ChangeHash> = asked.iter().copied().collect();
    let message = error.to_string();
    let words = message.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == HASH_DIGITS);
    let named: BTreeSet<_> = words.filter_map(|word| word.parse().ok()).collect();
    let unknown: BTreeSet<_> = named.intersection(&asked).copied().collect();
    if unknown.is_empty() { asked } else { unknown }
}

/// These changes, raw, in as few bodies as may carry them.
fn bodies(copy: &mut AutoCommit, hashes: &[ChangeHash]) -> Vec<Bytes> {
    let (mut bodies, mut body, mut count) = (Vec::new(), BytesMut::new(), 0);
    for change in hashes.iter().filter_map(|hash| copy.get_change_by_hash(hash)) {
        let raw = change.raw_bytes();
        let is_full = count == MAX_BODY_CHANGES || (body.len() + raw.len()) as u64 > MAX_DOC_BODY_BYTES;
        if is_full && count > 0 {
            bodies.push(std::mem::take(&mut body).freeze());
            count = 0;
        }
        body.extend_from_slice(raw);
        count += 1;
    }
    if count > 0 {
        bodies.push(body.freeze());
    }
    bodies
}

fn texts(hashes: &[ChangeHash]) -> Vec<String> {
    hashes.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use ::automerge::transaction::Transactable;
    use ::automerge::{ActorId, ROOT};
    use proptest::prelude::*;

    use super::*;

    /// A copy by several actors, each of whose edits is on top of what it has merged; and what the PoP has of it.
    fn copies(edits: &[(u8, bool, bool)]) -> (AutoCommit, BTreeSet<ChangeHash>) {
        let actor = |n: u8| AutoCommit::new().with_actor(ActorId::from(vec![n; 16]));
        let mut actors: Vec<_> = (0..4).map(actor).collect();
        let mut pop = actor(9);
        for (nth, (by, merges, is_sent)) in edits.iter().enumerate() {
            let by = usize::from(*by) % actors.len();
            let (own, other) = (by, (by + 1) % actors.len());
            if *merges {
                let mut other = actors[other].fork();
                actors[own].merge(&mut other).unwrap();
            }
            actors[own].put(ROOT, "k", nth as i64).unwrap();
            actors[own].commit();
            if *is_sent {
                pop.merge(&mut actors[own].fork()).unwrap();
            }
        }
        let mut copy = actor(8);
        for one in &mut actors {
            copy.merge(one).unwrap();
        }
        let here = pop.get_changes_meta(&[]).iter().map(|meta| meta.hash).collect();
        (copy, here)
    }

    /// Asks as `pull` and `push` do, of a PoP that has these; gives how many questions it took.
    fn settle(common: &mut Common, here: &BTreeSet<ChangeHash>, lacked: Option<ChangeHash>) -> usize {
        for questions in 0..=MAX_QUESTIONS {
            if common.is_settled() {
                return questions;
            }
            let asked = common.question(lacked);
            assert!(asked.len() <= MAX_HEADS, "{} are asked for at once", asked.len());
            let unknown = asked.iter().filter(|hash| !here.contains(hash)).copied().collect();
            common.note(&asked, &unknown);
        }
        panic!("not settled after {MAX_QUESTIONS} questions");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_both_have_is_settled_exactly(
            edits in proptest::collection::vec((any::<u8>(), any::<bool>(), any::<bool>()), 0..200),
        ) {
            let (mut copy, here) = copies(&edits);
            let mut common = Common::of(&mut copy);
            let lacked = copy.get_heads().into_iter().find(|head| !here.contains(head));
            settle(&mut common, &here, lacked);
            let all = copy.get_changes_meta(&[]);
            let expected: Vec<_> = all.iter().map(|meta| meta.hash).filter(|hash| !here.contains(hash)).collect();
            prop_assert_eq!(common.unknown(), expected);
        }
    }

    #[test]
    fn thousands_of_changes_in_a_row_take_a_few_questions() {
        let edits: Vec<_> = (0..5_000).map(|nth| (0, false, nth < 1_234)).collect();
        let (mut copy, here) = copies(&edits);
        let mut common = Common::of(&mut copy);
        let questions = settle(&mut common, &here, None);
        assert!(questions <= 4, "{questions} questions");
        assert_eq!(common.unknown().len(), 5_000 - 1_234);
    }

    #[test]
    fn a_body_has_as_many_changes_as_it_may() {
        for (count, expected) in [
            (0, vec![]),
            (MAX_BODY_CHANGES - 1, vec![MAX_BODY_CHANGES - 1]),
            (MAX_BODY_CHANGES, vec![MAX_BODY_CHANGES]),
            (MAX_BODY_CHANGES + 1, vec![MAX_BODY_CHANGES, 1]),
        ] {
            let edits = vec![(0, false, false); count];
            let (mut copy, _) = copies(&edits);
            let all: Vec<_> = copy.get_changes_meta(&[]).iter().map(|meta| meta.hash).collect();
            let mut fresh = AutoCommit::new();
            let taken: Vec<_> = bodies(&mut copy, &all)
                .into_iter()
                .map(|body| {
                    let before = fresh.get_heads();
                    fresh.load_incremental(&body).unwrap();
                    fresh.get_changes_meta(&before).len()
                })
                .collect();
            assert_eq!(taken, expected, "{count} changes");
        }
    }

    #[test]
    fn what_the_pop_names_is_unknown_and_all_where_it_names_none() {
        let hash = |n: u8| ChangeHash([n; 32]);
        let refused = |message: String| Error::Api { status: 409, code: UNKNOWN_CHANGES, message };
        let asked = [hash(1), hash(2)];
        let named = refused(format!("these heads are not known here: {}, {}", hash(2), hash(3)));
        assert_eq!(unknown_of(&named, &asked), [hash(2)].into());
        assert_eq!(unknown_of(&refused("otherwise".into()), &asked), asked.into());
    }
}
