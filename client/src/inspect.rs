//! Calls that look into a PoP's store: it is verified, or compared with another's.

use reqwest::Method;

use crate::api::diff::{EntryPage, Leaves};
use crate::api::verify::VerifyReport;
use crate::client::Client;
use crate::error::Error;
use crate::request::Request;

impl Client {
    /// Has the PoP check its store against its digests, row by row. It goes on after the answer;
    /// [`Client::verify_report`] tells how far it is.
    ///
    /// # Errors
    /// [`Error::Api`] of status 409 while one runs.
    pub async fn verify(&self) -> Result<VerifyReport, Error> {
        self.json(&Request::new(Method::POST, "/v1/verify").not_idempotent()).await
    }

    /// How far the PoP's verification is, and what the last one found.
    pub async fn verify_report(&self) -> Result<VerifyReport, Error> {
        self.json(&Request::read("/v1/verify")).await
    }

    /// The digests of the PoP's leaves, made from all its rows, so that a large store takes its time.
    pub async fn leaves(&self) -> Result<Leaves, Error> {
        self.json(&Request::read("/v1/leaves")).await
    }

    /// The states of the entries in these leaves (of all, where there are none), a page at a time.
    pub async fn entries(&self, leaves: &[u16], after: Option<&str>) -> Result<EntryPage, Error> {
        let mut request = Request::read("/v1/entries");
        if !leaves.is_empty() {
            let named: Vec<String> = leaves.iter().map(|leaf| format!("{leaf:x}")).collect();
            request = request.query("leaves", named.join("."));
        }
        if let Some(after) = after {
            request = request.query("after", after);
        }
        self.json(&request).await
    }
}
