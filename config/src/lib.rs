//! Littoral's settings: a TOML file and `LITTORAL_*` variables, parsed once into types that cannot be wrong.
//!
//! `example.toml`, beside this crate's manifest, has every key with its meaning, unit, default and bound. Each
//! key outside a list has a variable, `LITTORAL_<SECTION>_<KEY>`, which goes before the file. One bearer token
//! may come from `LITTORAL_HTTP_ACCOUNT` and `LITTORAL_HTTP_TOKEN`, beside those of the file. A relative path,
//! also one from a variable, starts at the file's folder.
//!
//! The rule: nothing is guessed and nothing is ignored. An unknown key, an unknown variable or an impossible
//! value is refused with the place, what is wrong and what would be right.
//!
//! ```
//! let text = "[log]\nlevel = \"inof\"";
//! let error = littoral_config::Config::parse(text, "fra1.toml", std::iter::empty()).unwrap_err();
//! assert!(error.to_string().contains("fra1.toml:2: log.level = \"inof\" is not a log level: use off, error, "));
//! ```

mod bindings;
mod budgets;
mod conflicts;
mod documents;
mod error;
mod names;
mod sections;
mod source;
mod spelling;
mod tls;

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

pub use bindings::{Binding, BindingAccess, BindingListen, MAX_BINDINGS, MAX_SOCKET_PATH_BYTES};
pub use budgets::{
    BURST_MS, BudgetLinks, Budgets, Day, DayTime, MAX_SCHEDULES, MONTHLY_BYTES, Monthly, Schedule,
};
pub use conflicts::{CONFLICT_BYTES, CONFLICT_DAYS, CONFLICT_ROWS, Conflicts};
pub use documents::{DOCUMENT_BYTES, DOCUMENT_OPS, Documents, WARM_BYTES};
pub use error::{ConfigError, Place, Problem};
pub use names::{
    ACCOUNT_DIGITS, AccountId, MAX_HOST_BYTES, MAX_LABEL_BYTES, MAX_TOKEN_BYTES, NAMESPACE_DIGITS,
    NamespaceId, NotALabel, NotANamespaceId, NotAToken, NotAnAccountId, NotAnEndpoint, PopName, Secret,
};
pub use sections::{
    CACHE_BYTES, CHUNK_GRACE_S, DRAIN_S, EPOCH_MS, GATHER_MS, HEADER_TIMEOUT_MS, HEARTBEAT_MS, MAX_AWAY_S,
    MAX_CONNECTIONS, MAX_PEERS, MAX_TOKENS, MAX_WAITING_BYTES, MIN_FREE_BYTES, OPENING_TIMEOUT_MS, RATE,
    SESSION_WAIT_MS, STALLED_TIMEOUT_MS,
};
pub use source::MAX_PROBLEMS;
pub use tls::{HttpTls, RELOAD_S};

/// The largest configuration file, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// All settings of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// Who this node is, and where it keeps what is its own.
    pub node: Node,
    /// The REST API.
    pub http: Http,
    /// The other PoPs.
    pub replication: Replication,
    /// What may be sent to them.
    pub budgets: Budgets,
    /// The store.
    pub storage: Storage,
    /// How large documents may be.
    pub documents: Documents,
    /// What is kept of values that lost to another write.
    pub conflicts: Conflicts,
    /// What is written to standard error.
    pub log: Log,
}

/// Who this node is, and where it keeps what is its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// The PoP this node is.
    #[serde(serialize_with = "display")]
    pub pop: PopName,
    /// The region the PoP is in: a lower-case DNS label.
    pub region: String,
    /// The folder of the store. Not that of the identity.
    #[serde(serialize_with = "path")]
    pub data_dir: PathBuf,
    /// The folder of the certificate, its key and the cluster's secret.
    #[serde(serialize_with = "path")]
    pub identity_dir: PathBuf,
}

/// The REST API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Http {
    /// Where to listen (TCP). Port 0 takes any free port.
    pub listen: SocketAddr,
    /// How many connections may be open at once; within [`MAX_CONNECTIONS`].
    pub max_connections: u32,
    /// How long a connection may be idle between two requests; within [`HEADER_TIMEOUT_MS`].
    pub header_timeout_ms: u64,
    /// How long a new connection may take for its TLS handshake, for its first request's head, and for any later head
    /// once it has begun; within [`OPENING_TIMEOUT_MS`].
    pub opening_timeout_ms: u64,
    /// How long a body may stand still on its way in, and an answer on its way out; within [`STALLED_TIMEOUT_MS`].
    pub stalled_timeout_ms: u64,
    /// How long a request may wait for this PoP, or others, to hold what it asks for; within [`SESSION_WAIT_MS`].
    pub session_wait_ms: u64,
    /// How long requests being answered may take when the node stops; within [`DRAIN_S`].
    pub drain_s: u64,
    /// The certificate of the TCP ports; none where they speak plain HTTP.
    pub tls: Option<HttpTls>,
    /// Who may do what: at least one, at most [`MAX_TOKENS`] and one of the environment. An account may have several.
    pub tokens: Vec<Token>,
    /// Listeners of one namespace each: at most [`MAX_BINDINGS`], no address twice.
    pub bindings: Vec<Binding>,
}

/// A bearer token and the account it opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Token {
    /// The account.
    #[serde(serialize_with = "display")]
    pub account: AccountId,
    /// What a client must send.
    #[serde(serialize_with = "revealed")]
    pub token: Secret,
    /// Whether it opens the operators' pages, too.
    pub cluster: bool,
}

/// The other PoPs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replication {
    /// Where to listen (UDP, QUIC). Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The pause between two heartbeats to a peer; within [`HEARTBEAT_MS`].
    pub heartbeat_ms: u64,
    /// The longest that a write waits for others to be sent with; within [`GATHER_MS`].
    pub gather_ms: u64,
    /// What everyone has is dropped in steps of this long; within [`EPOCH_MS`].
    pub epoch_ms: u64,
    /// A PoP that is away for longer is evicted; within [`MAX_AWAY_S`].
    pub max_away_s: u64,
    /// Where more than this waits for those that are away, they are evicted a hundred times sooner; within
    /// [`MAX_WAITING_BYTES`].
    pub max_waiting_bytes: u64,
    /// How what is sent is packed.
    pub compression: Compression,
    /// Whom to connect to: at most [`MAX_PEERS`], each PoP and address once, never this PoP.
    pub peers: Vec<Peer>,
}

/// Another PoP of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// Its name, which its certificate must carry.
    #[serde(serialize_with = "display")]
    pub pop: PopName,
    /// Where it listens: `host:port`, looked up at each attempt to connect.
    pub address: String,
    /// What kind of path leads there.
    pub path: PeerPath,
    /// What may be sent there, in bytes a second; within [`RATE`], of which the greatest is no limit.
    pub bytes_per_s: u64,
}

/// What kind of path leads to a peer, and so which budget its link shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerPath {
    /// By the regions: inside one, or between two.
    Auto,
    /// Each byte is paid for.
    Metered,
}

/// The store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Storage {
    /// The memory for cached pages; within [`CACHE_BYTES`]. Size it to the working set.
    pub cache_bytes: u64,
    /// With less free space on the store's disk than this, writes are refused; within [`MIN_FREE_BYTES`].
    pub min_free_bytes: u64,
    /// How long a chunk file of a large value stays once no value names it; within [`CHUNK_GRACE_S`].
    pub chunk_grace_s: u64,
}

/// What is written to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Log {
    /// A directive of tracing's `EnvFilter`: a level, then `module=level` after commas.
    pub level: String,
    /// How a line is written.
    pub format: LogFormat,
}

/// How frames to other PoPs are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// All of a lane in one zstd stream (RFC 8878).
    Zstd,
    /// As they are.
    None,
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads the file and the variables of this process.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.into(), source };
        let text = read_bounded(path).map_err(unreadable)?;
        let folder = std::path::absolute(path).map_err(unreadable)?;
        let env = variables().map_err(|problem| ConfigError::Refused { problems: vec![problem] })?;
        Self::parse_in(folder.parent().unwrap_or(&folder), &text, &path.to_string_lossy(), env.into_iter())
    }

    /// Parses `text`, which came from the file `source`, and lets the variables in `env` go before it. Those
    /// that do not start with `LITTORAL_` are no concern of ours.
    pub fn parse(
        text: &str,
        source: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::parse_in(Path::new(source).parent().unwrap_or(Path::new("")), text, source, env)
    }

    /// The settings as a file, which parses back to them, secrets included: write it where only the node may
    /// read. (A path that is not UTF-8 has no TOML and loses the bytes that are not.)
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("numbers fit TOML within their bounds, and all else is text")
    }

    fn parse_in(
        folder: &Path,
        text: &str,
        file: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let refused = |problems| ConfigError::Refused { problems };
        let mut source = source::Source::new(text, file, env).map_err(|problem| refused(vec![problem]))?;
        let config = Self::read(&mut source, folder);
        match (config, source.finish()) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(refused(problems)),
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

/// The variables of ours; `std::env::vars` would panic at a foreign one that is not UTF-8.
fn variables() -> Result<Vec<(String, String)>, Problem> {
    let ours = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    ours.filter(|(name, _)| name.starts_with(source::PREFIX))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => {
                let what = "the value is not UTF-8: use text".into();
                Err(Problem { place: Place::Variable(name), what })
            }
        })
        .collect()
}

fn display<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

fn path<S: Serializer>(value: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string_lossy())
}

/// `Secret` itself has no `Serialize`, so that it can leave the process only through this file.
fn revealed<S: Serializer>(value: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(value.reveal())
}
