//! What each section may hold: its keys, their defaults and bounds, and what must hold between sections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};

use crate::bindings::{self, bindings};
use crate::budgets::Budgets;
use crate::conflicts::Conflicts;
use crate::documents::Documents;
use crate::names::{PopName, endpoint, label};
use crate::source::Otherwise::{Missing, Use};
use crate::source::Source;
use crate::spelling::suggest;
use crate::tls::tls;
use crate::{Compression, Config, Http, Log, LogFormat, Node, Peer, PeerPath, Replication, Storage, Token};

/// The most bearer tokens in a file; the environment may add one.
pub const MAX_TOKENS: usize = 1024;
/// The most peers one node replicates with.
pub const MAX_PEERS: usize = 64;
/// How many HTTP connections may be open at once.
pub const MAX_CONNECTIONS: RangeInclusive<u32> = 1..=65_536;
/// How long a connection may be idle between two requests, in milliseconds.
pub const HEADER_TIMEOUT_MS: RangeInclusive<u64> = 100..=600_000;
/// How long a new connection may take for its handshake, and a head that has begun to come, in milliseconds.
pub const OPENING_TIMEOUT_MS: RangeInclusive<u64> = 100..=600_000;
/// How long a body or an answer may stand still, in milliseconds.
pub const STALLED_TIMEOUT_MS: RangeInclusive<u64> = 100..=600_000;
/// How long a request may wait for replication, in milliseconds.
pub const SESSION_WAIT_MS: RangeInclusive<u64> = 1..=60_000;
/// How long requests being answered may take when the node stops, in seconds.
pub const DRAIN_S: RangeInclusive<u64> = 1..=3_600;
/// Milliseconds that a write may wait for others to be sent with.
pub const GATHER_MS: RangeInclusive<u64> = 0..=1_000;
/// The pause between two heartbeats to a peer, in milliseconds.
pub const HEARTBEAT_MS: RangeInclusive<u64> = 10..=60_000;
/// The steps in which the stable frontier moves, in milliseconds.
pub const EPOCH_MS: RangeInclusive<u64> = 100..=3_600_000;
/// How long a PoP may be away before the others go on without it, in seconds: up to a year.
pub const MAX_AWAY_S: RangeInclusive<u64> = 10..=31_536_000;
/// What may wait for those that are away before they may be away for less long, in bytes: 1 MiB to 1 TiB.
pub const MAX_WAITING_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;
/// What may be sent, in bytes a second: 16 KiB, with which heartbeats still pass, to 100 GiB, which is no limit.
pub const RATE: RangeInclusive<u64> = 16 << 10..=100 << 30;
/// The store's memory cache, in bytes: 1 MiB to 1 TiB.
pub const CACHE_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;
/// How long a chunk file of a large value stays that no value names, in seconds: up to 30 days.
pub const CHUNK_GRACE_S: RangeInclusive<u64> = 1..=2_592_000;
/// The free disk space below which writes are refused, in bytes: 1 MiB to 1 TiB.
pub const MIN_FREE_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 40;

const DEFAULT_REGION: &str = "local";
const ACCOUNT_VARIABLE: &str = "LITTORAL_HTTP_ACCOUNT";
const TOKEN_VARIABLE: &str = "LITTORAL_HTTP_TOKEN";

impl Default for Http {
    /// Loopback, and no token yet: [`Config::parse`] wants at least one.
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 8787));
        Self {
            listen,
            tokens: Vec::new(),
            bindings: Vec::new(),
            max_connections: 4096,
            header_timeout_ms: 60_000,
            opening_timeout_ms: 10_000,
            stalled_timeout_ms: 30_000,
            session_wait_ms: 5_000,
            drain_s: 10,
            tls: None,
        }
    }
}

impl Default for Replication {
    /// Loopback, without peers.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9787)),
            peers: Vec::new(),
            heartbeat_ms: 500,
            gather_ms: 5,
            epoch_ms: 60_000,
            max_away_s: 604_800,
            max_waiting_bytes: 16 << 30,
            compression: Compression::Zstd,
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20, min_free_bytes: 256 << 20, chunk_grace_s: 3_600 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

impl Config {
    /// Reads every section, whatever is wrong with the others, so that one run names all bad keys. What must hold
    /// between keys is looked at once each of them is good.
    pub(crate) fn read(source: &mut Source<'_>, base: &Path) -> Option<Self> {
        let node = Node::read(source, base);
        let http = Http::read(source, base);
        let replication = Replication::read(source);
        let budgets = Budgets::read(source);
        let storage = Storage::read(source);
        let documents = Documents::read(source);
        let conflicts = Conflicts::read(source);
        let log = Log::read(source);
        let config = Self {
            node: node?,
            http: http?,
            replication: replication?,
            budgets: budgets?,
            storage: storage?,
            documents: documents?,
            conflicts: conflicts?,
            log: log?,
        };
        config.cross_check(source);
        Some(config)
    }

    fn cross_check(&self, source: &mut Source<'_>) {
        let Self { node, http, replication, .. } = self;
        if node.identity_dir == node.data_dir {
            let place = source.place("node.identity_dir");
            source.refuse(place, "node.identity_dir is also node.data_dir: give each its own folder".into());
        }
        // Port 0 asks for any free port, so two of them are not the same.
        if replication.listen == http.listen && http.listen.port() != 0 {
            let what =
                format!("replication.listen = {} is also http.listen: give each its own port", http.listen);
            source.refuse(source.place("replication.listen"), what);
        }
        bindings::cross_check(http, source);
        for (index, peer) in replication.peers.iter().enumerate() {
            if peer.pop == node.pop {
                let path = format!("replication.peers[{index}].pop");
                let what = format!("{path} = \"{}\" is this PoP itself: list only the others", peer.pop);
                source.refuse(source.place(&path), what);
            }
        }
    }
}

impl Node {
    fn read(source: &mut Source<'_>, base: &Path) -> Option<Self> {
        let folder = |text: &str| folder(base, text);
        let pop =
            source.text("node.pop", Missing("the name of this PoP, such as \"fra1\""), str::parse::<PopName>);
        let region = source.text("node.region", Use(DEFAULT_REGION.into()), label);
        let data_dir = source.text(
            "node.data_dir",
            Missing("the folder that holds the store, such as \"data\""),
            folder,
        );
        let identity_dir = source.text(
            "node.identity_dir",
            Missing("the folder `littoral node init` wrote, such as \"identity\""),
            folder,
        );
        Some(Self { pop: pop?, region: region?, data_dir: data_dir?, identity_dir: identity_dir? })
    }
}

impl Http {
    fn read(source: &mut Source<'_>, base: &Path) -> Option<Self> {
        let default = Self::default();
        let listen = source.text("http.listen", Use(default.listen), address);
        let max_connections = source.number("http.max_connections", default.max_connections, MAX_CONNECTIONS);
        let header_timeout_ms =
            source.number("http.header_timeout_ms", default.header_timeout_ms, HEADER_TIMEOUT_MS);
        let opening_timeout_ms =
            source.number("http.opening_timeout_ms", default.opening_timeout_ms, OPENING_TIMEOUT_MS);
        let stalled_timeout_ms =
            source.number("http.stalled_timeout_ms", default.stalled_timeout_ms, STALLED_TIMEOUT_MS);
        let session_wait_ms = source.number("http.session_wait_ms", default.session_wait_ms, SESSION_WAIT_MS);
        let drain_s = source.number("http.drain_s", default.drain_s, DRAIN_S);
        let tls = tls(source, base);
        let tokens = tokens(source);
        let bindings = bindings(source, base);
        Some(Self {
            listen: listen?,
            tokens: tokens?,
            bindings: bindings?,
            max_connections: max_connections?,
            header_timeout_ms: header_timeout_ms?,
            opening_timeout_ms: opening_timeout_ms?,
            stalled_timeout_ms: stalled_timeout_ms?,
            session_wait_ms: session_wait_ms?,
            drain_s: drain_s?,
            tls: tls?,
        })
    }
}

impl Replication {
    fn read(source: &mut Source<'_>) -> Option<Self> {
        let default = Self::default();
        let listen = source.text("replication.listen", Use(default.listen), address);
        let heartbeat_ms = source.number("replication.heartbeat_ms", default.heartbeat_ms, HEARTBEAT_MS);
        let gather_ms = source.number("replication.gather_ms", default.gather_ms, GATHER_MS);
        let epoch_ms = source.number("replication.epoch_ms", default.epoch_ms, EPOCH_MS);
        let max_away_s = source.number("replication.max_away_s", default.max_away_s, MAX_AWAY_S);
        let max_waiting_bytes =
            source.number("replication.max_waiting_bytes", default.max_waiting_bytes, MAX_WAITING_BYTES);
        let compression = source.text("replication.compression", Use(default.compression), compression);
        let peers = peers(source);
        Some(Self {
            listen: listen?,
            peers: peers?,
            heartbeat_ms: heartbeat_ms?,
            gather_ms: gather_ms?,
            epoch_ms: epoch_ms?,
            max_away_s: max_away_s?,
            max_waiting_bytes: max_waiting_bytes?,
            compression: compression?,
        })
    }
}

impl Storage {
    fn read(source: &mut Source<'_>) -> Option<Self> {
        let default = Self::default();
        let cache_bytes = source.number("storage.cache_bytes", default.cache_bytes, CACHE_BYTES);
        let min_free_bytes = source.number("storage.min_free_bytes", default.min_free_bytes, MIN_FREE_BYTES);
        let chunk_grace_s = source.number("storage.chunk_grace_s", default.chunk_grace_s, CHUNK_GRACE_S);
        Some(Self {
            cache_bytes: cache_bytes?,
            min_free_bytes: min_free_bytes?,
            chunk_grace_s: chunk_grace_s?,
        })
    }
}

impl Log {
    fn read(source: &mut Source<'_>) -> Option<Self> {
        let default = Self::default();
        let level = source.text("log.level", Use(default.level), log_level);
        let format = source.text("log.format", Use(default.format), log_format);
        Some(Self { level: level?, format: format? })
    }
}

/// The tokens of the file, and the one that the environment may add.
fn tokens(source: &mut Source<'_>) -> Option<Vec<Token>> {
    let count = source.tables("http.tokens", MAX_TOKENS);
    let mut tokens = Vec::new();
    for index in 0..count.unwrap_or(0) {
        let path = |key: &str| format!("http.tokens[{index}].{key}");
        let account =
            source.text(&path("account"), Missing("an account id of 32 hexadecimal digits"), str::parse);
        let token = source.secret(&path("token"), Missing("the bearer token of that account"), str::parse);
        let cluster = source.flag(&path("cluster"), true);
        tokens.push(account.zip(token).zip(cluster));
    }
    let account = source.variable(ACCOUNT_VARIABLE, str::parse);
    let token = source.variable(TOKEN_VARIABLE, str::parse);
    match (source.has_variable(ACCOUNT_VARIABLE), source.has_variable(TOKEN_VARIABLE)) {
        (true, true) => tokens.push(account.zip(token).map(|pair| (pair, true))),
        (true, false) => refuse_half(source, ACCOUNT_VARIABLE, TOKEN_VARIABLE),
        (false, true) => refuse_half(source, TOKEN_VARIABLE, ACCOUNT_VARIABLE),
        (false, false) if count == Some(0) => {
            let what = format!(
                "http.tokens is empty: add [[http.tokens]] with account and token, or set {ACCOUNT_VARIABLE} and {TOKEN_VARIABLE}"
            );
            source.refuse(source.place("http.tokens"), what);
        }
        (false, false) => {}
    }
    count?;
    let token = |((account, token), cluster)| Token { account, token, cluster };
    tokens.into_iter().map(|read| read.map(token)).collect()
}

fn refuse_half(source: &mut Source<'_>, given: &str, wanted: &str) {
    source.refuse(crate::Place::Variable(given.into()), format!("set without {wanted}: set both"));
}

impl Peer {
    /// One without a limit, on a path of no price.
    pub fn new(pop: PopName, address: String) -> Self {
        Self { pop, address, path: PeerPath::Auto, bytes_per_s: *RATE.end() }
    }
}

fn peers(source: &mut Source<'_>) -> Option<Vec<Peer>> {
    let count = source.tables("replication.peers", MAX_PEERS);
    let mut peers = Vec::new();
    let mut seen = BTreeMap::new();
    for index in 0..count.unwrap_or(0) {
        let path = |key: &str| format!("replication.peers[{index}].{key}");
        let pop = source.text(&path("pop"), Missing("the name of the peer's PoP"), str::parse::<PopName>);
        let address = source.text(&path("address"), Missing("the peer's host:port"), endpoint);
        let peer_path = source.text(&path("path"), Use(PeerPath::Auto), peer_path);
        let bytes_per_s = source.number(&path("bytes_per_s"), *RATE.end(), RATE);
        for (key, value) in [("pop", pop.as_ref().map(PopName::as_ref)), ("address", address.as_deref())] {
            let Some(value) = value else { continue };
            if let Some(first) = seen.insert((key, value.to_string()), index) {
                let what = format!(
                    "{} = {value:?} stands in replication.peers[{first}] already: list each peer once",
                    path(key)
                );
                source.refuse(source.place(&path(key)), what);
            }
        }
        let peer =
            || Some(Peer { pop: pop?, address: address?, path: peer_path?, bytes_per_s: bytes_per_s? });
        peers.push(peer());
    }
    count?;
    peers.into_iter().collect()
}

/// A path from the settings; a relative one starts at `base`.
pub(crate) fn folder(base: &Path, text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() || text.contains('\0') {
        return Err("is not a path: name a folder");
    }
    // Without "." parts, so that one folder has one spelling.
    let folder: PathBuf = base.join(text).components().filter(|part| *part != Component::CurDir).collect();
    Ok(if folder.as_os_str().is_empty() { ".".into() } else { folder })
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "is not an address: use IP:port, such as 127.0.0.1:8787 or [::]:8787")
}

/// The part of `EnvFilter`'s language that cannot be misread: it takes a misspelt level for a module's name.
fn log_level(text: &str) -> Result<String, &'static str> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_target = |target: &str| {
        !target.is_empty()
            && target.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-'))
    };
    let is_directive = |directive: &str| match directive.split_once('=') {
        Some((target, level)) => is_target(target) && LEVELS.contains(&level),
        None => LEVELS.contains(&directive),
    };
    if text.split(',').all(is_directive) {
        return Ok(text.into());
    }
    Err("is not a log level: use off, error, warn, info, debug or trace, and module=level after commas")
}

fn peer_path(text: &str) -> Result<PeerPath, String> {
    one_of_two(text, "a kind of path", [("auto", PeerPath::Auto), ("metered", PeerPath::Metered)])
}

fn compression(text: &str) -> Result<Compression, String> {
    one_of_two(text, "a compression", [("zstd", Compression::Zstd), ("none", Compression::None)])
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    one_of_two(text, "a log format", [("text", LogFormat::Text), ("json", LogFormat::Json)])
}

pub(crate) fn one_of_two<T: Copy>(text: &str, what: &str, choices: [(&str, T); 2]) -> Result<T, String> {
    let [(first, _), (second, _)] = choices;
    match choices.iter().find(|(name, _)| *name == text) {
        Some((_, value)) => Ok(*value),
        None => Err(match suggest(text, [first, second]) {
            Some(meant) => format!("is not {what}: did you mean {meant:?}?"),
            None => format!("is not {what}: use {first:?} or {second:?}"),
        }),
    }
}
