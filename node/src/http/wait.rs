//! `wait=`: an acknowledgement that comes once other PoPs hold the write, too.
//!
//! The rule this file upholds: the write is done here in any case. So what cannot come true is refused before it, and
//! that it did not come true in time is no error: nobody must write again.

use axum::body::Body;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use metrics::counter;
use replication::Hlc;

use super::error::ApiError;
use crate::engine::reach::Held;

/// The header that names the other PoPs that hold the write.
const HELD_BY: HeaderName = HeaderName::from_static("littoral-held-by");
/// The header that says whether as many do as were asked for: `held` or `timeout`.
const WAIT: HeaderName = HeaderName::from_static("littoral-wait");

/// Which other PoPs are to hold a write durably.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// As many of them.
    Count(usize),
    /// All members.
    All,
    /// At least one in this region.
    Region(String),
}

impl Wanted {
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let wrong =
            || ApiError::invalid(format!("wait must be a number, all or region=NAME, not \"{text}\""));
        match text.strip_prefix("region=") {
            Some("") => Err(wrong()),
            Some(region) => Ok(Self::Region(region.to_owned())),
            None if text == "all" => Ok(Self::All),
            None => text.parse().map(Self::Count).map_err(|_| wrong()),
        }
    }

    /// Whether there are members enough.
    pub(super) fn check(&self, held: &Held) -> Result<(), ApiError> {
        let others = held.others.len();
        let in_region = |name: &str| held.holders(Hlc::ZERO).any(|other| other.region == name);
        match self {
            Self::Count(count) if *count > others => Err(ApiError::invalid(format!(
                "wait={count} can never be: beside this PoP there are {others} members; nothing was written"
            ))),
            Self::Region(name) if !in_region(name) => Err(ApiError::invalid(format!(
                "wait=region={name} can never be: no other PoP is in that region; nothing was written"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether it has come true for what was written up to here.
    pub(super) fn is_met(&self, held: &Held, upto: Hlc) -> bool {
        let mut holders = held.holders(upto);
        match self {
            Self::Count(count) => holders.count() >= *count,
            Self::All => holders.count() >= held.others.len(),
            Self::Region(name) => holders.any(|holder| holder.region == *name),
        }
    }
}

/// The answer to a write, with who holds it.
pub(super) fn told(mut response: Response<Body>, held: &Held, upto: Hlc, is_met: bool) -> Response<Body> {
    let mut pops: Vec<&str> = held.holders(upto).map(|holder| holder.pop.as_str()).collect();
    pops.sort_unstable();
    // Names of PoPs are letters, digits and hyphens.
    if let Ok(pops) = HeaderValue::from_str(&pops.join(", ")) {
        response.headers_mut().insert(HELD_BY, pops);
    }
    let result = if is_met { "held" } else { "timeout" };
    response.headers_mut().insert(WAIT, HeaderValue::from_static(result));
    if !is_met {
        // Done, but not everywhere.
        *response.status_mut() = StatusCode::ACCEPTED;
    }
    counter!("littoral_write_waits_total", "result" => result).increment(1);
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use replication::ReplicaId;

    use super::*;
    use crate::engine::reach::Named;

    /// Two other members: one in each region, which hold what was written up to 5 and 3.
    fn held() -> Held {
        let at = |n, ms| (ReplicaId([n; 16]), Hlc::new(ms, 0));
        let named = |n, pop: &str, region: &str| {
            (ReplicaId([n; 16]), Named { pop: pop.into(), region: region.into() })
        };
        let members = Arc::new([named(1, "near", "home"), named(2, "far", "away")].into_iter().collect());
        Held { others: vec![at(1, 5), at(2, 3)], members, ..Held::default() }
    }

    #[test]
    fn what_is_asked_for_is_understood_or_refused() {
        for (text, wanted) in [
            ("0", Some(Wanted::Count(0))),
            ("2", Some(Wanted::Count(2))),
            ("all", Some(Wanted::All)),
            ("region=eu-west", Some(Wanted::Region("eu-west".into()))),
            ("region=", None),
            ("", None),
            ("-1", None),
            ("some", None),
        ] {
            assert_eq!(Wanted::parse(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn what_can_never_be_is_refused_and_what_is_is_met() {
        let held = held();
        for (text, can_be, is_met_at_5, is_met_at_3) in [
            ("0", true, true, true),
            ("1", true, true, true),
            ("2", true, false, true),
            ("3", false, false, false),
            ("all", true, false, true),
            ("region=home", true, true, true),
            ("region=away", true, false, true),
            ("region=nowhere", false, false, false),
        ] {
            let wanted = Wanted::parse(text).unwrap();
            assert_eq!(wanted.check(&held).is_ok(), can_be, "{text}");
            let is_met = |ms| wanted.is_met(&held, Hlc::new(ms, 0));
            assert_eq!((is_met(5), is_met(3)), (is_met_at_5, is_met_at_3), "{text}");
        }
    }
}
