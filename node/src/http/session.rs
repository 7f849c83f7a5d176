//! Sessions: what a client has seen and written, as a token that it carries from PoP to PoP.
//!
//! The rule this file upholds: what a token covers may be more than its client has seen, never less. A token is small: it
//! leaves out what every member holds, and beyond [`MAX_SESSION_ORIGINS`] lets one time stand for the oldest of them.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use replication::{Dot, Hlc, VersionVector};

use super::error::ApiError;
use crate::cursor::{Beyond, Cursor};
use crate::engine::reach::Held;
use crate::engine::{Engine, ReadError};

/// The header that carries the token, both ways.
pub(super) const SESSION_HEADER: &str = "littoral-session";
/// What a client sends that has no token yet.
const NEW: &str = "new";
/// The most origins in a token. With more, it waits for all members where it could have waited for some.
const MAX_SESSION_ORIGINS: usize = 64;

/// The most tokens that a request carries: a client that has several answers on their way joins them so.
const MAX_SESSION_TOKENS: usize = 64;
const NO_TOKEN: &str =
    "Littoral-Session is no token that this cluster has given; send \"new\" to begin a session";

/// What a client has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Session(Cursor);

impl Session {
    /// The session that a request carries, in one token or in several.
    pub(super) fn carried(engine: &Engine, headers: &HeaderMap) -> Result<Option<Self>, ApiError> {
        let mut joined: Option<Self> = None;
        for (number, token) in headers.get_all(SESSION_HEADER).iter().enumerate() {
            if number == MAX_SESSION_TOKENS {
                let most =
                    format!("a request carries at most {MAX_SESSION_TOKENS} tokens in Littoral-Session");
                return Err(ApiError::invalid(most));
            }
            let session = token.to_str().ok().and_then(|token| Self::decode(engine, token));
            let session = session.ok_or_else(|| ApiError::invalid(NO_TOKEN))?;
            joined.get_or_insert_default().0.join_all(&session.0);
        }
        Ok(joined)
    }

    /// The session of this token; `None` for what is no token of this cluster.
    pub(super) fn decode(engine: &Engine, text: &str) -> Option<Self> {
        if text == NEW {
            return Some(Self::default());
        }
        Cursor::decode(text, &purpose(engine)).map(Self)
    }

    pub(super) fn encode(&self, engine: &Engine) -> String {
        let mut cursor = self.0.clone();
        cursor.forget_upto(engine.held().epoch);
        cursor.fold(MAX_SESSION_ORIGINS);
        cursor.encode(&purpose(engine))
    }

    /// Where its client stands.
    pub(super) fn into_cursor(self) -> Cursor {
        self.0
    }

    /// A read that has ended may have shown all that is here now.
    pub(super) async fn has_read(&mut self, engine: &Engine) -> Result<(), ReadError> {
        self.has_seen(&engine.seen().await?);
        Ok(())
    }

    /// It has seen what this covers.
    pub(super) fn has_seen(&mut self, seen: &VersionVector) {
        self.0.join(seen);
    }

    /// It wrote this.
    pub(super) fn has_written(&mut self, dot: Dot) {
        self.0.tell(dot, 0);
    }

    /// What of it this PoP does not hold durably, if anything.
    pub(super) fn lacking(&self, engine: &Engine) -> Option<Lacking> {
        let held = engine.held();
        let complete_ms = engine.complete_upto_ms();
        let mut beyond = self.0.beyond(&Cursor::of(&held.here));
        beyond.retain(|part| {
            let is_complete = part.is_of_all() && complete_ms > part.hlc.wall_ms();
            part.hlc > held.epoch && !is_complete
        });
        let newest = beyond.iter().map(|part| part.hlc).max()?;
        Some(Lacking { newest, parts: beyond.iter().map(|part| show(part, &held)).collect() })
    }
}

/// What a PoP lacks of a session.
pub(super) struct Lacking {
    /// The newest event.
    pub(super) newest: Hlc,
    /// From each origin, in words.
    parts: Vec<String>,
}

impl Lacking {
    /// For who is refused.
    pub(super) fn explain(&self) -> String {
        format!("this PoP lacks what the session has seen, {}", self.parts.join(", "))
    }
}

/// Has an answer that is given again carry on the session that the request for it carries.
pub(super) fn carry_on(engine: &Engine, request: &HeaderMap, answer: &mut HeaderMap) {
    let (Ok(carried), Ok(told)) = (Session::carried(engine, request), Session::carried(engine, answer))
    else {
        return;
    };
    answer.remove(SESSION_HEADER);
    let Some(mut session) = carried else { return };
    session.0.join_all(&told.unwrap_or_default().0);
    if let Ok(token) = HeaderValue::from_str(&session.encode(engine)) {
        answer.insert(HeaderName::from_static(SESSION_HEADER), token);
    }
}

fn show(part: &Beyond, held: &Held) -> String {
    let members = held.members.iter();
    let mut named = members.filter(|(replica, _)| part.is_of(**replica)).map(|(_, named)| named.pop.as_str());
    let of = if part.is_of_all() { "any PoP" } else { named.next().unwrap_or("a PoP that it does not know") };
    match part.ops {
        0 => format!("of {of} events up to {}", part.hlc.wall_ms()),
        1 => format!("of {of} 1 event up to {}", part.hlc.wall_ms()),
        ops => format!("of {of} {ops} events up to {}", part.hlc.wall_ms()),
    }
}

/// What tells tokens of this cluster from any other text.
fn purpose(engine: &Engine) -> Vec<u8> {
    [&b"session "[..], &engine.secret()].concat()
}
