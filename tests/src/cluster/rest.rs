//! A small client of one PoP: one request for each call, no retry, every answer given back, which is what
//! a suite needs that counts what was acknowledged.

use std::time::Duration;

use anyhow::{Context, ensure};
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// The account of every cluster here.
pub const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
/// Its token.
pub const TOKEN: &str = "suite-token";

/// No answer within this time is an error: the node hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// The code of "there is no such key" in the envelope.
const KEY_NOT_FOUND: u64 = 10_009;

/// A PoP and a namespace.
#[derive(Clone, Debug)]
pub struct Rest {
    http: reqwest::Client,
    base: String,
    namespace: String,
    token: String,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl Rest {
    /// A client of the PoP at `base`; the namespace may be empty where only pages are asked for.
    pub fn new(base: &str, namespace: &str) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER_WITHIN)
            .tls_backend_preconfigured(no_tls())
            .build()
            .expect("a client that believes nobody has nothing that could fail");
        Self { http, base: base.to_owned(), namespace: namespace.to_owned(), token: TOKEN.to_owned() }
    }

    /// The same, with another token.
    pub fn with_token(self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self }
    }

    /// Makes a namespace and gives its id.
    pub async fn create_namespace(&self, title: &str) -> anyhow::Result<String> {
        let url = format!("{}{}", self.base, namespaces());
        let answer =
            answer(self.http.post(url).bearer_auth(&self.token).json(&json!({ "title": title }))).await?;
        ensure!(answer.status == 200, "creating a namespace: {} {}", answer.status, answer.text());
        let envelope: Value = serde_json::from_slice(&answer.body)?;
        Ok(envelope["result"]["id"].as_str().context("a namespace without an id")?.to_owned())
    }

    /// Writes a value. Keys here need no percent-encoding.
    pub async fn put(&self, key: &str, value: Vec<u8>) -> Result<Answer, reqwest::Error> {
        answer(self.http.put(self.value_url(key)).bearer_auth(&self.token).body(value)).await
    }

    /// Writes pairs in one request; an error where they are not acknowledged.
    pub async fn put_bulk(&self, pairs: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
        let url = format!("{}{}/{}/bulk", self.base, namespaces(), self.namespace);
        let pair = |(key, value): &(String, Vec<u8>)| json!({ "key": key, "value": BASE64_STANDARD.encode(value), "base64": true });
        let pairs: Vec<Value> = pairs.iter().map(pair).collect();
        let answer = answer(self.http.put(url).bearer_auth(&self.token).json(&pairs)).await?;
        ensure!(answer.status == 200, "writing in bulk: {} {}", answer.status, answer.text());
        Ok(())
    }

    /// Deletes a key.
    pub async fn delete(&self, key: &str) -> Result<Answer, reqwest::Error> {
        answer(self.http.delete(self.value_url(key)).bearer_auth(&self.token)).await
    }

    /// Reads a value: the bytes, `None` where the node says that there is no such key, and an error for
    /// every other answer.
    pub async fn read(&self, key: &str) -> anyhow::Result<Option<Bytes>> {
        let answer = self.read_raw(key).await?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            404 if answer.code() == Some(KEY_NOT_FOUND) => Ok(None),
            status => anyhow::bail!("{status} {}", answer.text()),
        }
    }

    /// Reads a value and gives the answer as it came.
    pub async fn read_raw(&self, key: &str) -> Result<Answer, reqwest::Error> {
        answer(self.http.get(self.value_url(key)).bearer_auth(&self.token)).await
    }

    /// Reads a page outside the account, such as `/readyz`.
    pub async fn page(&self, path: &str) -> Result<Answer, reqwest::Error> {
        answer(self.http.get(format!("{}{path}", self.base)).bearer_auth(&self.token)).await
    }

    /// A request about the namespace, `path` below it, with these headers; gives those of the answer, too.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<(Answer, HeaderMap), reqwest::Error> {
        let url = format!("{}{}/{}{path}", self.base, namespaces(), self.namespace);
        self.sent(method, url, headers, body).await
    }

    /// The same, of the pages under `/v1`.
    pub async fn native(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<(Answer, HeaderMap), reqwest::Error> {
        let url = format!("{}/v1/accounts/{ACCOUNT}/namespaces/{}{path}", self.base, self.namespace);
        self.sent(method, url, headers, body).await
    }

    async fn sent(
        &self,
        method: Method,
        url: String,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<(Answer, HeaderMap), reqwest::Error> {
        let request = self.http.request(method, url).bearer_auth(&self.token).body(body.to_owned());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = request.send().await?;
        let headers = response.headers().clone();
        Ok((Answer { status: response.status().as_u16(), body: response.bytes().await? }, headers))
    }

    fn value_url(&self, key: &str) -> String {
        format!("{}{}/{}/values/{key}", self.base, namespaces(), self.namespace)
    }
}

impl Answer {
    /// The first error code of an envelope, or that of a problem.
    pub fn code(&self) -> Option<u64> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        body["errors"][0]["code"].as_u64().or_else(|| body["code"].as_u64())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn namespaces() -> String {
    format!("/client/v4/accounts/{ACCOUNT}/storage/kv/namespaces")
}

/// Nobody is believed, for all is in clear here; but reqwest wants to be told of a crypto provider all the same.
fn no_tls() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring knows the protocols that rustls does")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    Ok(Answer { status: response.status().as_u16(), body: response.bytes().await? })
}
