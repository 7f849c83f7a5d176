//! Real inputs for every target, made by the code that ships: `cargo run -p littoral-tests --bin make-corpus`.
//!
//! Frames come out of simulations, rows out of stores, tokens and cursors out of what makes them. The same source
//! always gives the same files, so that a change of a format shows as a change of the corpus.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::{fs, io};

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT};
use littoral_node::fuzzing;
use replication::codec::row::{self, EntryRow};
use replication::kinds::{Element, ElementPart, PartState};
use replication::store::folding::Folding;
use replication::store::memory::MemoryStore;
use replication::store::{Batch, Store};
use replication::{Body, Dot, Entry, EntryId, Hlc, Kind, NamespaceId, ReplicaId, doc, keys};

use super::session::{self, step};
use crate::sim::{self, Scenario};

/// The scenarios that are listened to: the first has all that happens by chance, the others what has to be brought
/// about.
const SCENARIOS: [&str; 4] = ["swarm", "evicted", "restore", "clone"];
/// The seeds of each.
const SEEDS: std::ops::Range<u64> = 0..20;
/// The largest frame that is kept, in bytes: the corpus is part of every clone.
const MAX_FRAME_BYTES: usize = 8 << 10;
/// The most bytes of frames in one session.
const MAX_SESSION_BYTES: usize = 6 << 10;
/// Inputs that fuzzing found start with this, and stay when the corpus is made anew.
pub const FOUND: &str = "found-";

/// Inputs by target and name.
pub type Inputs = BTreeMap<(&'static str, String), Vec<u8>>;

/// Where the inputs of a target are.
pub fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The inputs of a target with their names.
///
/// # Errors
/// The folder or a file in it cannot be read.
pub fn read(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut inputs = Vec::new();
    for file in fs::read_dir(folder(target))? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        inputs.push((name, fs::read(&path)?));
    }
    inputs.sort();
    Ok(inputs)
}

/// Makes the whole corpus; of equal inputs of one target there is one.
pub fn make() -> Inputs {
    let frames = frames();
    let mut inputs = Inputs::new();
    add(&mut inputs, "session", sessions(&frames));
    let stores = honest_sessions().into_iter().flat_map(|(_, bytes)| session::stores(&bytes));
    for store in stores {
        add_rows(&mut inputs, &store);
    }
    add_rows(&mut inputs, folded_document().beneath());
    add(&mut inputs, "packed", packed(&frames));
    add(&mut inputs, "frames", frames.into_iter().collect());
    add(&mut inputs, "hello", hellos());
    add(&mut inputs, "chunk-request", chunk_requests());
    add(&mut inputs, "join-token", join_tokens());
    add(&mut inputs, "request", requests());
    add(&mut inputs, "binding", binding_requests());
    add(&mut inputs, "body", bodies());
    add(&mut inputs, "config", configs());
    let mut seen = BTreeSet::new();
    inputs.retain(|(target, _), bytes| seen.insert((*target, bytes.clone())));
    inputs
}

type Named = Vec<(String, Vec<u8>)>;

fn add(inputs: &mut Inputs, target: &'static str, named: Named) {
    inputs.extend(named.into_iter().map(|(name, bytes)| ((target, name), bytes)));
}

/// A frame of every kind and order of size that these simulations send.
pub fn frames() -> BTreeMap<String, Vec<u8>> {
    let mut frames = BTreeMap::new();
    for (name, seed) in SCENARIOS.iter().flat_map(|name| SEEDS.map(move |seed| (name, seed))) {
        let scenario = Scenario::named(name, seed).expect("a scenario of the simulator");
        let outcome = sim::run(&scenario, false).expect("the simulator's own suite runs these seeds");
        for (name, frame) in outcome.frames.frames().filter(|(_, frame)| frame.len() <= MAX_FRAME_BYTES) {
            frames.entry(name).or_insert_with(|| frame.to_vec());
        }
    }
    frames
}

fn honest_sessions() -> Named {
    let put = |node, key, len| vec![step::PUT, node, key, len];
    let talk = || vec![step::EXCHANGE, step::WAIT, 60, step::EXCHANGE];
    let both_write = [put(0, 1, 5), put(1, 1, 6), put(0, 2, 250), put(1, 4, 8), vec![step::DELETE, 0, 1]];
    let both_write = both_write.concat();
    let fail = [vec![step::CRASH, 0], put(0, 3, 1), vec![step::CRASH, 0, step::RECONNECT, 1]].concat();
    let away = [put(0, 7, 100), vec![step::WAIT, 250, step::CRASH, 1], put(1, 7, 3)].concat();
    vec![
        ("write".into(), [both_write.clone(), talk()].concat()),
        ("fail".into(), [both_write.clone(), fail, talk(), talk()].concat()),
        ("away".into(), [talk(), both_write, talk(), away, talk()].concat()),
    ]
}

/// Honest sessions, and for each kind of frame one in which such frames come from nowhere.
fn sessions(frames: &BTreeMap<String, Vec<u8>>) -> Named {
    let mut sessions = honest_sessions();
    let changed = [step::CHANGED, 0, 30, 0, 200, step::CHANGED, 1, 70, 0, 1, step::EXCHANGE];
    for (_, session) in &mut sessions {
        session.extend(changed);
    }
    let start = [step::PUT, 0, 1, 5, step::PUT, 1, 2, 6, step::EXCHANGE];
    let mut by_kind = BTreeMap::<&str, Vec<u8>>::new();
    for (name, frame) in frames {
        let kind = name.split('-').next().unwrap_or(name);
        let session = by_kind.entry(kind).or_insert_with(|| start.to_vec());
        if session.len() + 2 * frame.len() <= MAX_SESSION_BYTES {
            session.extend(session::frame_step(0, false, frame));
            session.extend(session::frame_step(1, true, frame));
            session.push(step::EXCHANGE);
        }
    }
    sessions.extend(by_kind.into_iter().map(|(kind, session)| (kind.to_owned(), session)));
    sessions
}

/// The rows of a store without their checks, which the target makes itself, and their keys.
fn add_rows(inputs: &mut Inputs, store: &impl Store) {
    let mut visit = |row_key: &[u8], row: bytes::Bytes| {
        let family = row_key.first().copied().unwrap_or_default() as char;
        let name = match family {
            'm' => String::from_utf8_lossy(row_key).into_owned(),
            _ => format!("{family}-{}", row.len()),
        };
        let unchecked = row.len().saturating_sub(4);
        inputs.insert(("rows", format!("{name}-{unchecked}")), row[..unchecked].to_vec());
        inputs.insert(("row-keys", name), row_key.to_vec());
        ControlFlow::Continue(())
    };
    store.scan(&[], &mut visit).expect("memory scans");
}

/// A document of a few edits, folded.
fn folded_document() -> Folding<MemoryStore> {
    let whole = EntryId::whole(NamespaceId([9; 16]), Kind::Doc, &b"page"[..]);
    let mut document = AutoCommit::new().with_actor(ActorId::from([1; 24]));
    let (mut batch, mut elements) = (Batch::new(), Vec::new());
    for n in 0..4 {
        // One is long enough for Automerge to compress it.
        document.put(ROOT, "text", "a text of words ".repeat(1 + n * 10)).expect("a field can be put");
        document.commit();
        let change = document.get_last_local_change().expect("it was edited").bytes().into_owned();
        let (element, content) = doc::rows(&change.into()).expect("it is small").remove(0);
        let id = EntryId { element: element.clone(), ..whole.clone() };
        let dot = Dot { hlc: Hlc::new(1_800_000_000_000 + n as u64, 0), replica: ReplicaId([1; 16]) };
        let part = ElementPart { hlc: dot.hlc, state: PartState::Alive(content) };
        let body = Body::Element(Element { parts: [(dot.replica, part)].into() });
        let row_key = keys::entry(&id);
        let row = row::encode_entry(&row_key, &EntryRow::of(0, Entry { dot, body, base: Hlc::ZERO }));
        batch.insert(row_key, Some(row));
        elements.push(element);
    }
    let mut store = Folding::<MemoryStore>::default();
    let folded = store.commit(batch).and_then(|()| store.fold(&keys::entry(&whole), &elements));
    assert_eq!(folded.expect("memory commits").kept, elements.len());
    store
}

fn hellos() -> Named {
    let longest = "x".repeat(63);
    let hello = |pop: &str, region: &str| (format!("pop-{}", pop.len()), fuzzing::real_hello(pop, region));
    vec![hello("fra1", "eu"), hello("a", "us-east-1"), hello(&longest, &longest)]
}

fn chunk_requests() -> Named {
    let request = |tail: &[u8]| [&[7; 32][..], tail].concat();
    let (whole, rest) = (request(&[0; 5]), request(&[1, 0, 4, 0, 0]));
    vec![("old".into(), request(&[])), ("whole".into(), whole), ("rest".into(), rest)]
}

/// The frames that are long enough, and of them only those that are short.
fn packed(frames: &BTreeMap<String, Vec<u8>>) -> Named {
    let chosen = frames.iter().filter(|(_, frame)| (64..1_024).contains(&frame.len()));
    chosen.filter_map(|(name, frame)| Some((name.clone(), fuzzing::packed(frame)?))).collect()
}

fn join_tokens() -> Named {
    let contents = format!(
        r#"{{"cluster":"{}","pop":"fra1","expires_at_s":1798761600,"digest_secret":"{}","authority":"-----BEGIN","certificate":"C","key":"K"}}"#,
        "01".repeat(16),
        "ab".repeat(32)
    );
    let token = fuzzing::sealed_join_token(contents.as_bytes());
    vec![("contents".into(), contents.into()), ("token".into(), token.into())]
}

fn requests() -> Named {
    let path = |rest: &str| {
        format!(
            "/client/v4/accounts/0123456789abcdef0123456789abcdef/storage/kv/namespaces/{}/{rest}",
            "0f".repeat(16)
        )
    };
    let cursor = fuzzing::real_cursor("some/key".as_bytes());
    let texts = [
        format!("PUT\n{}\nexpiration_ttl=60.5&ack=buffered\n", path("values/a%2Fb+c")),
        format!("PUT\n{}\nexpiration=1800000000&ack=durable\n", path("values/bulk/get")),
        format!("GET\n{}\nprefix=a+b%2B&limit=10&cursor={cursor}\n{cursor}", path("keys")),
        format!("GET\n{}\npage=2&per_page=5&order=title\n", path("metadata/%C3%BC")),
        format!("POST\n{}\n\n", path("bulk/delete")),
    ];
    numbered(texts)
}

fn binding_requests() -> Named {
    let id = "0f".repeat(16);
    let named = format!("X-KV-Namespace-Id: {id}");
    let texts = [
        format!("GET\nhttps://fake-host/binding/{id}/a%2Fb%20+%C3%BC?urlencoded=true&cache_ttl=60\nHost: x"),
        format!("GET\n/k?urlencoded=true\n{named}\nCF-KV-FLPROD-405: https://fake-host/k"),
        format!("PUT\n/k[]|^?expiration_ttl=60\n{named}\nCF-KV-Metadata: {{\"ü\": [1, null]}}"),
        format!("GET\n/binding/{id}/?key_count_limit=10&prefix=a&cursor=\nX-KV-Account-Id: {id}"),
        format!("POST\n/bulk/get\n{named}\nContent-Type: application/json"),
        format!(
            "PUT\n/binding/{id}/to%2Fken\nMF-URL: https://fake-host/a%2Fb?urlencoded=true\nMF-Binding: KV\n\
             MF-Header-CF-KV-Metadata: \"m\""
        ),
        format!("GET\n/binding/{id}?MF-Binding=KV\nUpgrade: websocket"),
    ];
    numbered(texts)
}

fn bodies() -> Named {
    let texts = [
        r#"[{"key":"a","value":"b","expiration_ttl":60,"metadata":{"x":[1,2.5e3,null]}},{"key":"c","value":"AAEC","base64":true}]"#,
        r#"[{"key":"\u00fc","value":"\n","expiration":4102444800,"metadata":null}]"#,
        r#"["a","b/c","\ud83d\ude00"]"#,
        r#"{"keys":["a","b"],"type":"json","withMetadata":true}"#,
        r#" { "b" : 1.0 , "a": [ 1e400, "\\\" x" ] } "#,
        r#"{"writes":[{"kind":"value","op":"put","key":"a","value":"b","metadata":null,"if_none_match":"*"},{"kind":"counter","op":"add","key":"a","amount":-1,"expiration_ttl":9},{"kind":"bounded","op":"take","key":"a","amount":1,"if_match":"\"x\", W/\"y\""},{"kind":"set","op":"delete","key":"a"},{"kind":"map","op":"put","key":"a","field":"f","base64":"/w=="}]}"#,
    ];
    numbered(texts.map(String::from))
}

fn configs() -> Named {
    let example = include_str!("../../../config/example.toml");
    let pop = include_str!("../../../config/pops/pop-1.toml");
    // Keys that stand in comments are read too.
    let everything: String =
        example.lines().map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
    let settings = pop.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let variables =
        "\0LITTORAL_NODE_POP=ams1\nLITTORAL_STORAGE_CACHE_BYTES=67108864\nLITTORAL_LOG_FORMAT=json\n";
    numbered([example.to_owned(), everything, settings.clone(), settings + variables])
}

fn numbered(texts: impl IntoIterator<Item = String>) -> Named {
    let number = |(number, text): (usize, String)| (format!("{number}"), text.into_bytes());
    texts.into_iter().enumerate().map(number).collect()
}
