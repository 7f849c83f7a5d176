//! What carries a request to a PoP: the network, or a call inside the process that has a node of its own.
//!
//! The rule this file upholds: whatever carries it, a request is the same, and so is its answer.

use std::fmt;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::error::Error;
use crate::namespace::Value;

pub use reqwest::{Body, Request, Response};

/// Carries requests to a PoP. A [`Client`](crate::Client) has the network for that; `littoral_node::Embedded` is one inside
/// the process, which [`Client::over`](crate::Client::over) takes.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Carries a request there, and gives the head of its answer, whatever that says; the body may follow. The address in
    /// the request's URL means nothing where there is but one PoP.
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response, Unanswered>>;

    /// Reads a value without a request, where that can be done at once. `None` where a request must be made: it says what
    /// is wrong, if anything is.
    fn read(&self, account: &str, namespace: &str, key: &str) -> Option<Read> {
        let _ = (account, namespace, key);
        None
    }

    /// A session's token for all that [`Transport::read`] has shown; `None` where it shows nothing.
    fn shown(&self) -> Option<String> {
        None
    }
}

/// What was read without a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// `None` when there is no such key.
    pub value: Option<Value>,
    /// What it may lack, at most, of what was written elsewhere.
    pub staleness: Duration,
}

/// A request that has no answer.
#[derive(Debug)]
pub struct Unanswered {
    /// What happened.
    pub error: Error,
    /// Whether the PoP may have got the request.
    pub may_be_done: bool,
}

/// The network.
impl Transport for reqwest::Client {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Response, Unanswered>> {
        let url = request.url().to_string();
        let unanswered = move |error: reqwest::Error| Unanswered {
            error: Error::transport(&url, &error),
            may_be_done: !error.is_connect(),
        };
        self.execute(request).map(|answer| answer.map_err(unanswered)).boxed()
    }
}
