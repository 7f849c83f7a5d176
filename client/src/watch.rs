//! A watch: events of a namespace as they come, over as many connections as it takes.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::{Stream, stream};
use reqwest::Response;
use tokio::time::Instant;

use crate::api::watch::{WatchEvent, WatchKind, WatchType};
use crate::error::Error;
use crate::namespace::Namespace;
use crate::request::{Request, random_bits, segment};

/// A watch ends with an error when the PoP has not answered for so long.
pub const MAX_WATCH_OUTAGE: Duration = Duration::from_secs(60);

/// The longest event, in bytes: a value of 16 KiB takes a tenth of that at most.
const MAX_LINE_BYTES: usize = 1 << 20;
/// The mean pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(500);

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchOptions {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Only this key; not together with a prefix.
    pub key: Option<String>,
    /// Only entries of this kind.
    pub kind: Option<WatchKind>,
    /// Leave out what is there already.
    pub without_snapshot: bool,
    /// Where an earlier watch of the same stood ([`WatchEvent::cursor`]), at this PoP or another.
    pub cursor: Option<String>,
}

impl Namespace {
    /// Watches the namespace: what is there, [`WatchType::Sync`], then what changes. Sends nothing yet.
    pub fn watch(&self, options: WatchOptions) -> Watch {
        Watch { namespace: self.clone(), options, connection: None, is_begun: false, heard: Instant::now() }
    }
}

/// A watch under way. Where a connection ends, it goes on with another from its last cursor; without one yet it begins anew,
/// after a [`WatchType::Reset`].
#[derive(Debug)]
pub struct Watch {
    namespace: Namespace,
    options: WatchOptions,
    connection: Option<Connection>,
    /// Whether events were given before.
    is_begun: bool,
    /// When the PoP was last heard.
    heard: Instant,
}

#[derive(Debug)]
struct Connection {
    response: Response,
    read: BytesMut,
    lines: VecDeque<BytesMut>,
}

impl Watch {
    /// Where the watch stands: another goes on from here. `None` before the first [`WatchType::Sync`].
    pub fn cursor(&self) -> Option<&str> {
        self.options.cursor.as_deref()
    }

    /// The events as a stream, which ends after its first error.
    pub fn events(self) -> impl Stream<Item = Result<WatchEvent, Error>> {
        stream::try_unfold(self, |mut watch| async move {
            let event = watch.next().await?;
            Ok(Some((event, watch)))
        })
    }

    /// The next event; waits for it. May be dropped and called again.
    ///
    /// # Errors
    /// Where the PoP refuses the watch, or has not answered for [`MAX_WATCH_OUTAGE`].
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            let Some(connection) = &mut self.connection else {
                if let Some(reset) = self.connect().await? {
                    return Ok(reset);
                }
                continue;
            };
            match connection.line().await {
                Ok(Some(line)) => {
                    self.heard = Instant::now();
                    let event: WatchEvent =
                        serde_json::from_slice(&line).map_err(|error| self.not_understood(error))?;
                    if let Some(cursor) = &event.cursor {
                        self.options.cursor = Some(cursor.clone());
                    }
                    if event.what == WatchType::End {
                        self.connection = None;
                        tokio::time::sleep(jittered()).await;
                        continue;
                    }
                    self.is_begun = true;
                    return Ok(event);
                }
                Err(TooLong) => return Err(self.not_understood("an event is too long")),
                // Broken, or ended without a word: the cursor knows where.
                Ok(None) => self.connection = None,
            }
        }
    }

    /// Connects, for as long as an outage may take. Gives what to tell of it, if it begins anew.
    async fn connect(&mut self) -> Result<Option<WatchEvent>, Error> {
        let request = self.request()?;
        loop {
            match self.namespace.account.client.send(&request).await {
                Ok(response) => {
                    self.heard = Instant::now();
                    let (read, lines) = (BytesMut::new(), VecDeque::new());
                    self.connection = Some(Connection { response, read, lines });
                    let is_anew = self.is_begun && self.options.cursor.is_none();
                    return Ok(is_anew.then(|| {
                        let mut reset = WatchEvent::of(WatchType::Reset);
                        reset.reason = Some("the connection broke before there was a cursor".into());
                        reset
                    }));
                }
                Err(error) if !passes(&error) || self.heard.elapsed() >= MAX_WATCH_OUTAGE => {
                    return Err(error);
                }
                Err(_) => tokio::time::sleep(jittered()).await,
            }
        }
    }

    fn request(&self) -> Result<Request, Error> {
        let Namespace { account, id } = &self.namespace;
        let path = format!(
            "/v1/accounts/{}/namespaces/{}/watch",
            segment(account.id(), "account id")?,
            segment(id, "namespace id")?
        );
        let mut request = Request::read(path).accept("application/x-ndjson");
        let WatchOptions { prefix, key, kind, without_snapshot, cursor } = &self.options;
        if !prefix.is_empty() {
            request = request.query("prefix", prefix);
        }
        if let Some(key) = key {
            request = request.query("key", key);
        }
        if let Some(kind) = kind {
            request = request.query("kind", kind.name());
        }
        if *without_snapshot {
            request = request.query("snapshot", false);
        }
        if let Some(cursor) = cursor {
            request = request.query("cursor", cursor);
        }
        Ok(request)
    }

    fn not_understood(&self, reason: impl ToString) -> Error {
        match self.request() {
            Ok(request) => self.namespace.account.client.not_understood(&request, reason),
            Err(error) => error,
        }
    }
}

struct TooLong;

impl Connection {
    /// The next line; `None` where the connection is over.
    async fn line(&mut self) -> Result<Option<BytesMut>, TooLong> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(Some(line));
            }
            let Ok(Some(bytes)) = self.response.chunk().await else { return Ok(None) };
            self.read.extend_from_slice(&bytes);
            while let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                self.lines.push_back(line);
            }
            if self.read.len() > MAX_LINE_BYTES {
                return Err(TooLong);
            }
        }
    }
}

/// Whether the same request may be answered in a while.
fn passes(error: &Error) -> bool {
    match error {
        Error::Transport { .. } => true,
        Error::Api { status, .. } => *status == 429 || *status >= 500,
        Error::Decode { .. } | Error::Invalid { .. } => false,
    }
}

/// Clients that lost one node do not come back together.
fn jittered() -> Duration {
    PAUSE / 2 + PAUSE.mul_f64(random_bits() as f64 / u64::MAX as f64)
}
