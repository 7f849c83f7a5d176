//! What the client has seen, carried from answer to request, and what the answers tell of themselves.
//!
//! The rule this file upholds: a token goes only when an answer to a request that carried it has brought the next one. So
//! requests that are under way at once lose nothing of each other: their tokens are sent together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};

use crate::client::Client;
use crate::error::Error;

const SESSION_HEADER: &str = "littoral-session";
const STALENESS_HEADER: &str = "littoral-staleness-ms";
const WAIT_HEADER: &str = "littoral-wait";
const HELD_BY_HEADER: &str = "littoral-held-by";
/// What is sent where there is no token yet.
const NEW: &str = "new";
/// The most tokens at once, which is also the most that a node takes. With more requests under way at once, what the
/// oldest of them have seen is not waited for.
const MAX_TOKENS: usize = 64;
/// Between tokens, where they are handed over as one text.
const SEPARATOR: char = ',';
/// No answer has said how stale it may be.
const UNTOLD: u64 = u64::MAX;

/// How a write that was to wait for other PoPs has ended. It was done in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldBy {
    /// Whether as many PoPs hold it as were asked for; else the time was up.
    pub is_met: bool,
    /// The other PoPs that held it by then.
    pub pops: Vec<String>,
}

/// The tokens that are to be sent.
#[derive(Debug, Default)]
pub(crate) struct Session {
    tokens: Mutex<Vec<String>>,
    /// Whether it was begun elsewhere, so that a PoP may lack some of it.
    is_from_elsewhere: bool,
}

impl Session {
    fn of(text: &str) -> Self {
        let tokens = text.split(SEPARATOR).filter(|token| !token.is_empty()).map(str::to_owned).collect();
        Self { tokens: Mutex::new(tokens), is_from_elsewhere: true }
    }

    pub(crate) fn tokens(&self) -> Vec<String> {
        lock(&self.tokens).clone()
    }

    /// Whether one PoP holds all of it, since nothing but its own answers is in it.
    pub(crate) fn is_of_one_pop(&self) -> bool {
        !self.is_from_elsewhere
    }

    /// Has a request carry these.
    pub(crate) fn carry(tokens: &[String], request: &mut HeaderMap) {
        if tokens.is_empty() {
            request.insert(SESSION_HEADER, HeaderValue::from_static(NEW));
        }
        // What was taken from an answer, or checked, is a header's text.
        for token in tokens.iter().filter_map(|token| HeaderValue::from_str(token).ok()) {
            request.append(SESSION_HEADER, token);
        }
    }

    /// An answer to a request that carried `sent` is here.
    pub(crate) fn take(&self, sent: &[String], answer: &HeaderMap) {
        let told = answer.get_all(SESSION_HEADER).iter().filter_map(|token| token.to_str().ok());
        let told: Vec<String> = told.map(str::to_owned).collect();
        if told.is_empty() {
            return;
        }
        let mut tokens = lock(&self.tokens);
        tokens.retain(|token| !sent.contains(token) && !told.contains(token));
        tokens.extend(told);
        let too_many = tokens.len().saturating_sub(MAX_TOKENS);
        tokens.drain(..too_many);
    }
}

/// What the latest answers have told of themselves.
#[derive(Debug)]
pub(crate) struct Told {
    staleness_ms: AtomicU64,
    held: Mutex<Option<HeldBy>>,
}

impl Default for Told {
    fn default() -> Self {
        Self { staleness_ms: AtomicU64::new(UNTOLD), held: Mutex::default() }
    }
}

impl Told {
    /// A read without a request was this stale.
    pub(crate) fn take_staleness(&self, staleness: Duration) {
        self.staleness_ms.store(staleness.as_millis() as u64, Ordering::Relaxed);
    }

    pub(crate) fn take(&self, answer: &HeaderMap) {
        let text = |name: &str| answer.get(name).and_then(|value| value.to_str().ok());
        if let Some(ms) = text(STALENESS_HEADER).and_then(|ms| ms.parse().ok()) {
            self.staleness_ms.store(ms, Ordering::Relaxed);
        }
        if let Some(result) = text(WAIT_HEADER) {
            let pops = text(HELD_BY_HEADER).unwrap_or_default().split(", ");
            let pops = pops.filter(|pop| !pop.is_empty()).map(str::to_owned).collect();
            *lock(&self.held) = Some(HeldBy { is_met: result == "held", pops });
        }
    }
}

impl Client {
    /// What this client and its clones have seen and written, to go on from elsewhere ([`Client::with_session`]); `None`
    /// where that is nothing yet, or sessions are switched off.
    pub fn session(&self) -> Option<String> {
        let mut tokens = self.session.as_ref()?.tokens();
        tokens.extend(self.transport.shown());
        (!tokens.is_empty()).then(|| tokens.join(&SEPARATOR.to_string()))
    }

    /// A client that goes on from what another has seen and written, in a session of its own.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what can be no session's token.
    pub fn with_session(&self, session: &str) -> Result<Self, Error> {
        let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | SEPARATOR);
        if session.is_empty() || !session.chars().all(is_token) {
            return Err(Error::invalid("this is no session: give what Client::session gave"));
        }
        Ok(Self { session: Some(Session::of(session).into()), ..self.clone() })
    }

    /// What the answer to the latest read of this client or a clone may have lacked, at most, of what was written elsewhere;
    /// `None` before the first.
    pub fn staleness(&self) -> Option<Duration> {
        let ms = self.told.staleness_ms.load(Ordering::Relaxed);
        (ms != UNTOLD).then(|| Duration::from_millis(ms))
    }

    /// How the latest write of this client or a clone that was to wait for other PoPs has ended.
    pub fn held_by(&self) -> Option<HeldBy> {
        lock(&self.told.held).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is whole at any moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(tokens: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for token in tokens {
            headers
                .append(SESSION_HEADER, HeaderValue::from_str(token).unwrap_or(HeaderValue::from_static("")));
        }
        headers
    }

    #[test]
    fn a_token_goes_when_an_answer_to_it_has_brought_the_next() {
        let session = Session::default();
        // Two requests at once, neither of which knew of the other.
        session.take(&[], &answer(&["a"]));
        session.take(&[], &answer(&["b"]));
        assert_eq!(session.tokens(), ["a", "b"]);
        session.take(&session.tokens(), &answer(&["c"]));
        assert_eq!(session.tokens(), ["c"]);
        // An answer without one, or that gives back what was sent, changes nothing.
        session.take(&session.tokens(), &answer(&[]));
        session.take(&session.tokens(), &answer(&["c"]));
        assert_eq!(session.tokens(), ["c"]);
    }

    #[test]
    fn so_many_tokens_are_kept_and_the_oldest_go() {
        let session = Session::default();
        (0..=MAX_TOKENS).for_each(|n| session.take(&[], &answer(&[&format!("t{n}")])));
        let tokens = session.tokens();
        assert_eq!((tokens.len(), tokens[0].as_str()), (MAX_TOKENS, "t1"));
    }
}
