//! `POST /v1/accounts/{account}/namespaces/{namespace}/batch`: several writes that become visible together, at every PoP.
//!
//! The rule this file upholds: a batch is done as a whole or not at all. All of it is checked before it goes to the
//! engine, which decides about all conditions before it writes; and an error names the write that is meant.

mod writes;

use axum::body::Body;
use hyper::Response;
use hyper::http::request::Parts;
use littoral::api::batch::{BatchDone, BatchWritten};
use littoral::api::tokens::Action;
use replication::kinds::ChangeError;
use replication::{Dot, NamespaceId};
use tokio::sync::SemaphorePermit;

use self::writes::{Planned, parse};
use super::Surface;
use super::attributes::now_s;
use super::auth::Place;
use super::body::{DRAIN_SLACK_BYTES, Upload};
use super::bulk::wait_for_memory;
use super::conditions::{self, quoted};
use super::error::ApiError;
use super::kinds::{json, with_receipt};
use super::native_path::NativePath;
use super::query::Query;
use super::route::Operation;
use crate::engine::{Engine, Etag, ReadError, WriteError, show_dot};

/// The most bytes of a body: [`MAX_BATCH_BYTES`](crate::engine::MAX_BATCH_BYTES), each escaped as JSON can, the conditions
/// of all writes, and white space.
const MAX_BODY_BYTES: u64 = 4 << 20;

/// A batch that is asked for, its path taken apart but not yet checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    account: &'a str,
    namespace: &'a str,
}

/// What is asked for under this path; `None` where it is not this page.
pub(super) fn route(path: &str) -> Option<Asked<'_>> {
    let NativePath { account, namespace, page, rest } = NativePath::parse(path)?;
    (page == "batch" && rest == [None; 3]).then_some(Asked { account, namespace })
}

/// The methods that there are under a path; `None` where it is not this page.
#[cfg(test)]
pub(super) fn allowed(path: &str) -> Option<&'static str> {
    route(path).map(|_| ALLOW)
}

const ALLOW: &str = "POST";

impl<'a> Asked<'a> {
    pub(super) fn namespace(&self) -> &'a str {
        self.namespace
    }
}

pub(super) async fn answer(
    surface: &Surface,
    asked: &Asked<'_>,
    head: &Parts,
    body: Body,
) -> (Operation, Response<Body>) {
    let mut upload = Upload::new(&head.headers, body, surface.stalled);
    let answer = commit(surface, asked, head, &mut upload).await;
    upload.drain(MAX_BODY_BYTES + DRAIN_SLACK_BYTES).await;
    let mut answer = answer.unwrap_or_else(ApiError::into_problem);
    conditions::sign(&mut answer, surface.engine.pop());
    (Operation::Batch, answer)
}

/// Reads a batch that another PoP is to decide about, if whoever sent it may do all of it; as long as what is given
/// beside the body is kept, there is memory for that.
pub(super) async fn admit<'a>(
    surface: &'a Surface,
    asked: &Asked<'_>,
    head: &Parts,
    body: Body,
) -> Result<(Body, SemaphorePermit<'a>), ApiError> {
    let mut upload = Upload::new(&head.headers, body, surface.stalled);
    let read = async {
        let place = enter(surface, asked, head)?;
        let (body, share) = receive(surface, &mut upload).await?;
        plan(&place, &body)?;
        Ok((body.into(), share))
    };
    let read = read.await;
    upload.drain(MAX_BODY_BYTES + DRAIN_SLACK_BYTES).await;
    read
}

fn enter(surface: &Surface, asked: &Asked<'_>, head: &Parts) -> Result<Place, ApiError> {
    let named = (asked.account, asked.namespace);
    let place = Place::named(surface, head, named, ALLOW, Action::Write)?;
    if conditions::is_conditional(&head.headers) {
        return Err(ApiError::invalid(
            "If-Match and If-None-Match are for one state, not for a batch: give \"if_match\" or \"if_none_match\" with the \
             write that they are about",
        ));
    }
    Ok(place)
}

async fn receive<'a>(
    surface: &'a Surface,
    upload: &mut Upload,
) -> Result<(Vec<u8>, SemaphorePermit<'a>), ApiError> {
    let announced = upload.announced().unwrap_or(MAX_BODY_BYTES).min(MAX_BODY_BYTES);
    let share = wait_for_memory(surface, Some(announced)).await?;
    Ok((upload.collect(MAX_BODY_BYTES).await?, share))
}

/// The writes of this body, where whoever sent it may do all of them.
fn plan(place: &Place, body: &[u8]) -> Result<Vec<Planned>, ApiError> {
    let writes = parse(body, place.namespace, now_s())?;
    for (index, write) in writes.iter().enumerate() {
        place.check(&write.key).map_err(|cause| write.refused(index, cause))?;
    }
    Ok(writes)
}

async fn commit(
    surface: &Surface,
    asked: &Asked<'_>,
    head: &Parts,
    upload: &mut Upload,
) -> Result<Response<Body>, ApiError> {
    let place = enter(surface, asked, head)?;
    let ack = Query::parse(head.uri.query())?.ack()?;
    let (body, _share) = receive(surface, upload).await?;
    let planned = plan(&place, &body)?;
    let writes = planned.iter().map(Planned::write).collect();
    let dots = match place.write_batch(surface, writes, ack).await {
        Ok(dots) => dots,
        Err(error) => return Err(meant(&planned, error)),
    };
    let done = planned.iter().zip(&dots).map(|(write, dot)| done(&surface.engine, write, *dot));
    let writes = done.collect::<Result<Vec<_>, _>>()?;
    let last = dots.last().copied();
    let receipt = last.map(show_dot).unwrap_or_default();
    Ok(with_receipt(json(&BatchWritten { receipt, writes }), last))
}

/// What became of a write. Others may have counted between the two.
fn done(engine: &Engine, write: &Planned, dot: Dot) -> Result<BatchDone, ReadError> {
    let (etag, count) = if write.names_state() {
        (Some(Etag::of_event(dot)), None)
    } else if write.counts() {
        let found = write.counted(engine)?;
        let (count, etag) = found.map_or((0, None), |(count, etag)| (count, Some(etag)));
        (etag, Some(count))
    } else {
        (None, None)
    };
    Ok(BatchDone { receipt: show_dot(dot), etag: etag.as_ref().map(quoted), count })
}

/// The error, with the write that it is about where that can be told.
fn meant(planned: &[Planned], error: ApiError) -> ApiError {
    let named = |index: usize, cause| match planned.get(index) {
        Some(write) => write.refused(index, cause),
        None => cause,
    };
    match error {
        ApiError::Write(WriteError::Precondition { index, .. }) => named(index, error),
        ApiError::Write(WriteError::Change { index, error: ChangeError::LacksRights { here, left } }) => {
            let wanted = planned.get(index).and_then(Planned::taking).unwrap_or_default();
            named(index, ApiError::RightsElsewhere { wanted, here, left })
        }
        ApiError::Write(WriteError::Change { index, .. }) => named(index, error),
        other => other,
    }
}

/// The writes of a body, each by its key, for the tests of decoders.
pub(crate) fn keys_of(body: &[u8]) -> Option<Vec<String>> {
    let writes = parse(body, NamespaceId::SYSTEM, now_s()).ok()?;
    Some(writes.into_iter().map(|write| write.key).collect())
}

#[cfg(test)]
mod tests {
    use littoral::api::batch::{MAX_BYTES, MAX_VALUE_BYTES, MAX_WRITES};
    use replication::entry::MAX_INLINE_BYTES;
    use replication::{Hlc, ReplicaId};

    use super::super::idempotency::MAX_ANSWER_BYTES;
    use super::*;
    use crate::engine::{MAX_BATCH_BYTES, MAX_BATCH_WRITES};

    #[test]
    fn only_its_own_path_leads_to_it() {
        let ns = "/v1/accounts/acc/namespaces/ns";
        let found = route("/v1/accounts/acc/namespaces/ns/batch");
        assert_eq!(found, Some(Asked { account: "acc", namespace: "ns" }));
        for nowhere in ["", "/batch/", "/batch/k", "/batches", "//batch", "/values/batch"] {
            assert_eq!(route(&format!("{ns}{nowhere}")), None, "{nowhere}");
        }
        for nowhere in ["/v1/accounts//namespaces/ns/batch", "/v1/accounts/a/namespaces//batch", "/v1/batch"]
        {
            assert_eq!(route(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn clients_are_told_the_limits_that_hold() {
        assert_eq!((MAX_WRITES, MAX_BYTES), (MAX_BATCH_WRITES, MAX_BATCH_BYTES));
        assert_eq!(MAX_VALUE_BYTES, MAX_INLINE_BYTES);
    }

    /// A repetition is answered with what is kept of the answer, and that has a limit.
    #[test]
    fn the_longest_answer_is_kept_for_repetitions() {
        let dot = Dot { hlc: Hlc::from_bits(u64::MAX), replica: ReplicaId([255; 16]) };
        let receipt = show_dot(dot);
        let of_state =
            BatchDone { receipt: receipt.clone(), etag: Some(quoted(&Etag::of_event(dot))), count: None };
        let of_counter = BatchDone {
            receipt: receipt.clone(),
            etag: Some(quoted(&Etag::of_hash(blake3::hash(b"")))),
            count: Some(i64::MIN),
        };
        for done in [of_state, of_counter] {
            let written = BatchWritten { receipt: receipt.clone(), writes: vec![done; MAX_BATCH_WRITES] };
            let bytes = serde_json::to_vec(&written).unwrap();
            assert!(bytes.len() <= MAX_ANSWER_BYTES, "{}", bytes.len());
        }
    }
}
