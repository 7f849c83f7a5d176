//! `Idempotency-Key`: a write that is sent again is answered again, and not done again.
//!
//! The rule this file upholds: what may have been done is never done twice under one key. So the work goes on when its
//! client goes away, and a repetition of what this node cannot remember is refused. It holds at this PoP only, and for as
//! long as this node runs: a client sends its repetitions to where it sent the first.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Response, StatusCode};
use metrics::counter;
use replication::entry::MAX_VALUE_BYTES;

use super::body::{DRAIN_SLACK_BYTES, Upload};
use super::error::{ApiError, problem};
use super::listener::Door;
use super::native_path::ACCOUNTS;
use super::route::Operation;
use super::{Surface, auth, session, terms};

pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// How long ago the first of these requests was sent, in milliseconds: on each that follows.
const FIRST_SENT: HeaderName = HeaderName::from_static("littoral-first-sent-ms");
/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;
/// How long a key is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// The most keys of one token; the oldest that is answered goes for one more.
const MAX_KEYS_PER_OWNER: usize = 8_192;
/// The most tokens with keys; the keys of one more are refused.
const MAX_OWNERS: usize = 1_024;
/// The most bytes of an answer; one that is longer is told to be lost.
pub(super) const MAX_ANSWER_BYTES: usize = 16 << 10;

type Hash = [u8; 32];

tokio::task_local! {
    /// What has come of the body of the request being answered.
    static BODY: RefCell<blake3::Hasher>;
}

/// The key of a request as another PoP is to know it, for whom all that we ask comes from one: no two tokens share it. One
/// that cannot be a key is left for that PoP to refuse.
pub(super) fn own_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let key = headers.get(KEY)?.as_bytes();
    let token = auth::presented(headers).ok()?;
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(blake3::hash(token).as_bytes()).update(key);
    HeaderValue::from_str(&hasher.finalize().to_hex()).ok()
}

/// Notes bytes of the body of the request that is being answered.
pub(super) fn note_body(bytes: &[u8]) {
    // Most requests have no key.
    let _ = BODY.try_with(|body| {
        body.borrow_mut().update(bytes);
    });
}

/// An answer that may be given again.
#[derive(Clone)]
struct Kept {
    body_hash: Hash,
    status: StatusCode,
    headers: HeaderMap,
    /// None where it was too long.
    body: Option<Bytes>,
}

/// What became of a key.
enum Fate {
    UnderWay,
    /// It came to no answer: nobody knows what was done.
    Lost,
    Done(Arc<Kept>),
}

struct Slot {
    /// What was asked for, but the body.
    asked: Hash,
    fate: Fate,
}

/// The keys of one token.
struct Owned {
    slots: HashMap<Hash, Slot>,
    /// In the order of their coming.
    order: VecDeque<(Instant, Hash)>,
    /// All keys since then are there.
    complete_since: Instant,
}

/// All keys that this node remembers.
pub(super) struct Keys {
    owners: Mutex<HashMap<Hash, Owned>>,
    started: Instant,
}

/// What is to be done with a request that has a key.
enum Verdict {
    /// It is the first.
    First,
    UnderWay,
    /// It was begun, and failed on its way.
    Lost,
    /// The key stands for another request.
    Other,
    /// It was sent before, and this node does not remember whether it was done.
    Forgotten,
    TooMany,
    Again(Arc<Kept>),
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { owners: Mutex::default(), started: Instant::now() }
    }

    fn begin(
        &self,
        owner: Hash,
        key: Hash,
        asked: Hash,
        first_sent: Option<Duration>,
        now: Instant,
    ) -> Verdict {
        let mut owners = self.lock();
        let Self { started, .. } = self;
        if owners.len() >= MAX_OWNERS && !owners.contains_key(&owner) {
            owners.retain(|_, owned| owned.forget_old(now));
            if owners.len() >= MAX_OWNERS {
                return Verdict::TooMany;
            }
        }
        let owned = owners.entry(owner).or_insert_with(|| Owned {
            slots: HashMap::new(),
            order: VecDeque::new(),
            complete_since: *started,
        });
        owned.forget_old(now);
        match owned.slots.get(&key) {
            Some(slot) if slot.asked != asked => return Verdict::Other,
            Some(Slot { fate: Fate::UnderWay, .. }) => return Verdict::UnderWay,
            Some(Slot { fate: Fate::Lost, .. }) => return Verdict::Lost,
            Some(Slot { fate: Fate::Done(kept), .. }) => return Verdict::Again(kept.clone()),
            None => {}
        }
        let remembered = now.duration_since(owned.complete_since).min(REMEMBERED);
        if first_sent.is_some_and(|ago| ago >= remembered) {
            return Verdict::Forgotten;
        }
        if !owned.make_room(now) {
            return Verdict::TooMany;
        }
        owned.slots.insert(key, Slot { asked, fate: Fate::UnderWay });
        owned.order.push_back((now, key));
        Verdict::First
    }

    /// The request is answered; `None` where it was surely not done.
    fn end(&self, owner: Hash, key: Hash, kept: Option<Kept>) {
        let mut owners = self.lock();
        let Some(owned) = owners.get_mut(&owner) else { return };
        match (owned.slots.get_mut(&key), kept) {
            (Some(slot), Some(kept)) => slot.fate = Fate::Done(Arc::new(kept)),
            (_, None) => {
                owned.slots.remove(&key);
                owned.order.retain(|(_, known)| *known != key);
            }
            (None, Some(_)) => {}
        }
    }

    /// The request will not be answered.
    fn lose(&self, owner: Hash, key: Hash) {
        let mut owners = self.lock();
        let slot = owners.get_mut(&owner).and_then(|owned| owned.slots.get_mut(&key));
        if let Some(slot) = slot.filter(|slot| matches!(slot.fate, Fate::UnderWay)) {
            slot.fate = Fate::Lost;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Hash, Owned>> {
        // A panic elsewhere leaves a table that is still a table.
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way. One that is let go without its answer, as by a panic, is lost.
struct UnderWay<'a> {
    keys: &'a Keys,
    owner: Hash,
    key: Hash,
}

impl UnderWay<'_> {
    /// It is answered, as [`Keys::end`].
    fn end(self, kept: Option<Kept>) {
        self.keys.end(self.owner, self.key, kept);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        // Of one that has ended nothing is under way any more.
        self.keys.lose(self.owner, self.key);
    }
}

impl Owned {
    /// Gives whether anything is left.
    fn forget_old(&mut self, now: Instant) -> bool {
        while self.order.front().is_some_and(|(came, _)| now.duration_since(*came) >= REMEMBERED) {
            self.forget_first(now);
        }
        !self.slots.is_empty()
    }

    /// Forgets the oldest key, if it is answered. One that is under way counts as new.
    fn forget_first(&mut self, now: Instant) {
        let Some((came, key)) = self.order.pop_front() else { return };
        match self.slots.get(&key) {
            Some(Slot { fate: Fate::UnderWay, .. }) => self.order.push_back((now, key)),
            _ => {
                self.slots.remove(&key);
                self.complete_since = self.complete_since.max(came);
            }
        }
    }

    /// Room for one more. Gives whether there is any.
    fn make_room(&mut self, now: Instant) -> bool {
        let mut tries = self.order.len();
        while self.slots.len() >= MAX_KEYS_PER_OWNER && tries > 0 {
            let since = self.complete_since;
            self.forget_first(now);
            // What goes before its time must not be taken for what never came.
            self.complete_since = if self.slots.len() < MAX_KEYS_PER_OWNER { now } else { since };
            tries -= 1;
        }
        self.slots.len() < MAX_KEYS_PER_OWNER
    }
}

/// Whether the request is a write of keys that has a key of its own.
pub(super) fn is_meant(head: &Parts) -> bool {
    let path = head.uri.path();
    let is_write = !matches!(head.method, Method::GET | Method::HEAD);
    let is_about_keys = path.starts_with("/client/v4/") || path.starts_with(ACCOUNTS);
    is_write && is_about_keys && head.headers.contains_key(KEY)
}

/// Answers such a request.
pub(super) async fn answer(
    surface: &Arc<Surface>,
    door: Door,
    head: Parts,
    body: Body,
) -> (Operation, Response<Body>) {
    let named = match Named::of(surface, &head) {
        Ok(Some(named)) => named,
        // Nobody: refused as without a key.
        Ok(None) => return terms::answer(surface, door, head, body).await,
        Err(error) => return refuse(surface, error.into_problem(), &head, body).await,
    };
    let Named { owner, key, asked, first_sent } = named;
    match surface.keys.begin(owner, key, asked, first_sent, Instant::now()) {
        Verdict::First => {
            // It goes on when its client goes away: else nobody would know whether it was done.
            let surface = surface.clone();
            let work = tokio::spawn(async move { surface.answer_once(door, head, body, owner, key).await });
            let failed =
                |_| problem(StatusCode::INTERNAL_SERVER_ERROR, "it failed: this is a bug, please report it");
            work.await.unwrap_or_else(|error| (Operation::Unrouted, failed(error)))
        }
        Verdict::Again(kept) => {
            let mut upload = Upload::new(&head.headers, body, surface.stalled);
            let body = upload.hash(MAX_VALUE_BYTES + DRAIN_SLACK_BYTES).await;
            if body != Some(kept.body_hash) {
                return (Operation::Unrouted, other());
            }
            counter!("littoral_idempotent_repeats_total").increment(1);
            (Operation::Unrouted, again(surface, &kept, &head.headers))
        }
        Verdict::UnderWay => {
            let mut response =
                problem(StatusCode::CONFLICT, "the first request with this Idempotency-Key is under way");
            response.headers_mut().insert(RETRY_AFTER, 1.into());
            refuse(surface, response, &head, body).await
        }
        Verdict::Lost => {
            let why = "it failed on its way: it may have been done; read what is there before you send it anew, with \
                       another Idempotency-Key";
            refuse(surface, problem(StatusCode::CONFLICT, why), &head, body).await
        }
        Verdict::Other => refuse(surface, other(), &head, body).await,
        Verdict::Forgotten => {
            let why = "this node was started, or has forgotten keys, since this was first sent: it may have been done; \
                       read what is there before you send it anew, with another Idempotency-Key";
            refuse(surface, problem(StatusCode::CONFLICT, why), &head, body).await
        }
        Verdict::TooMany => {
            let why = "too many Idempotency-Keys are in use at this node; try again in a second";
            refuse(surface, problem(StatusCode::TOO_MANY_REQUESTS, why), &head, body).await
        }
    }
}

impl Surface {
    async fn answer_once(
        self: &Arc<Self>,
        door: Door,
        head: Parts,
        body: Body,
        owner: Hash,
        key: Hash,
    ) -> (Operation, Response<Body>) {
        let under_way = UnderWay { keys: &self.keys, owner, key };
        let work = async {
            let answered = terms::answer(self, door, head, body).await;
            (answered, BODY.with(|body| *body.borrow().finalize().as_bytes()))
        };
        let ((operation, response), body_hash) = BODY.scope(RefCell::default(), work).await;
        let (parts, body) = response.into_parts();
        let whole = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let kept = is_final(parts.status).then(|| Kept {
            body_hash,
            status: parts.status,
            headers: parts.headers.clone(),
            body: (whole.len() <= MAX_ANSWER_BYTES).then(|| whole.clone()),
        });
        under_way.end(kept);
        (operation, Response::from_parts(parts, Body::from(whole)))
    }
}

/// Whether a request that was answered so would be answered so again.
fn is_final(status: StatusCode) -> bool {
    let passes = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS, StatusCode::CONFLICT];
    !status.is_server_error() && !passes.contains(&status)
}

/// Which request this is.
struct Named {
    owner: Hash,
    key: Hash,
    asked: Hash,
    first_sent: Option<Duration>,
}

impl Named {
    fn of(surface: &Surface, head: &Parts) -> Result<Option<Self>, ApiError> {
        let headers = &head.headers;
        let Ok(token) = auth::presented(headers) else { return Ok(None) };
        if surface.tokens.grant(token)?.is_none() {
            return Ok(None);
        }
        let key = headers.get(KEY).map(HeaderValue::as_bytes).unwrap_or_default();
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(ApiError::invalid(format!("Idempotency-Key must be 1 to {MAX_KEY_BYTES} bytes")));
        }
        if terms::is_stream(head) {
            return Err(ApiError::invalid(
                "a stream of orders takes no Idempotency-Key: send those anew that have no answer",
            ));
        }
        let mut asked = blake3::Hasher::new();
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        asked.update(head.method.as_str().as_bytes()).update(b" ").update(target.as_bytes());
        // For another state it is another request.
        for name in [IF_MATCH, IF_NONE_MATCH] {
            for value in headers.get_all(&name) {
                asked.update(b"\n").update(name.as_str().as_bytes()).update(b": ").update(value.as_bytes());
            }
        }
        Ok(Some(Self {
            owner: *blake3::hash(token).as_bytes(),
            key: *blake3::hash(key).as_bytes(),
            asked: *asked.finalize().as_bytes(),
            first_sent: terms::number(headers, FIRST_SENT)?.map(Duration::from_millis),
        }))
    }
}

fn again(surface: &Surface, kept: &Kept, headers: &HeaderMap) -> Response<Body> {
    let Some(body) = kept.body.clone() else {
        return problem(StatusCode::CONFLICT, "it was done, but its answer was too long to be kept");
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = kept.status;
    response.headers_mut().clone_from(&kept.headers);
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    session::carry_on(&surface.engine, headers, response.headers_mut());
    response
}

fn other() -> Response<Body> {
    problem(
        StatusCode::UNPROCESSABLE_ENTITY,
        "this Idempotency-Key was used for another request: take a new one",
    )
}

async fn refuse(
    surface: &Surface,
    response: Response<Body>,
    head: &Parts,
    body: Body,
) -> (Operation, Response<Body>) {
    let mut upload = Upload::new(&head.headers, body, surface.stalled);
    upload.drain(MAX_VALUE_BYTES + DRAIN_SLACK_BYTES).await;
    (Operation::Unrouted, response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u8) -> Hash {
        [n; 32]
    }

    fn kept() -> Kept {
        Kept { body_hash: hash(0), status: StatusCode::OK, headers: HeaderMap::new(), body: None }
    }

    #[test]
    fn a_key_stands_for_one_request_of_one_owner_until_it_is_forgotten() {
        let keys = Keys::new();
        let now = Instant::now();
        let begin = |owner, key, asked, at| keys.begin(hash(owner), hash(key), hash(asked), None, at);
        assert!(matches!(begin(1, 1, 1, now), Verdict::First));
        assert!(matches!(begin(1, 1, 1, now), Verdict::UnderWay));
        assert!(matches!(begin(2, 1, 1, now), Verdict::First));
        keys.end(hash(1), hash(1), Some(kept()));
        assert!(matches!(begin(1, 1, 1, now), Verdict::Again(_)));
        assert!(matches!(begin(1, 1, 2, now), Verdict::Other));
        assert!(matches!(begin(1, 1, 2, now + REMEMBERED), Verdict::First));
        // What was surely not done may be done.
        keys.end(hash(1), hash(1), None);
        assert!(matches!(begin(1, 1, 1, now + REMEMBERED), Verdict::First));
    }

    /// It once stayed under way for as long as the node ran.
    #[test]
    fn a_key_whose_work_panicked_is_told_to_be_lost_and_forgotten_in_time() {
        let keys = Keys::new();
        let now = Instant::now();
        let begin = |at| keys.begin(hash(1), hash(1), hash(1), None, at);
        assert!(matches!(begin(now), Verdict::First));
        let under_way = UnderWay { keys: &keys, owner: hash(1), key: hash(1) };
        assert!(matches!(begin(now), Verdict::UnderWay));
        let panicking = std::panic::AssertUnwindSafe(|| {
            let _under_way = under_way;
            panic!("as a handler may");
        });
        std::panic::catch_unwind(panicking).unwrap_err();
        assert!(matches!(begin(now), Verdict::Lost));
        assert!(matches!(begin(now + REMEMBERED), Verdict::First));
        // An answer stays.
        UnderWay { keys: &keys, owner: hash(1), key: hash(1) }.end(Some(kept()));
        assert!(matches!(begin(now + REMEMBERED), Verdict::Again(_)));
    }

    #[test]
    fn a_repetition_of_what_may_be_forgotten_is_not_carried_out() {
        let keys = Keys::new();
        let begin = |key, ago_ms, at| {
            keys.begin(hash(1), hash(key), hash(1), Some(Duration::from_millis(ago_ms)), at)
        };
        let later = keys.started + Duration::from_secs(5);
        assert!(matches!(begin(1, 4_999, later), Verdict::First));
        assert!(matches!(begin(2, 5_000, later), Verdict::Forgotten));
        let much_later = keys.started + 2 * REMEMBERED;
        assert!(matches!(begin(3, REMEMBERED.as_millis() as u64, much_later), Verdict::Forgotten));
    }

    #[test]
    fn an_owner_has_so_many_keys_and_the_oldest_goes_for_one_more() {
        let keys = Keys::new();
        let name = |n: usize| *blake3::hash(&n.to_be_bytes()).as_bytes();
        let begin = |n| keys.begin(hash(1), name(n), hash(1), None, Instant::now());
        for n in 0..MAX_KEYS_PER_OWNER {
            assert!(matches!(begin(n), Verdict::First), "{n}");
        }
        assert!(matches!(begin(MAX_KEYS_PER_OWNER), Verdict::TooMany), "all are under way");
        keys.end(hash(1), name(7), Some(kept()));
        assert!(matches!(begin(MAX_KEYS_PER_OWNER), Verdict::First));
        let repeated = keys.begin(hash(1), name(7), hash(1), Some(Duration::from_secs(1)), Instant::now());
        assert!(matches!(repeated, Verdict::Forgotten));
    }
}
