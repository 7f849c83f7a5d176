//! The files that are shipped, and files that are written: they parse, and say what is true.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use littoral_config::{
    CACHE_BYTES, CHUNK_GRACE_S, CONFLICT_BYTES, CONFLICT_DAYS, CONFLICT_ROWS, Compression, Config,
    DOCUMENT_BYTES, DOCUMENT_OPS, DRAIN_S, EPOCH_MS, GATHER_MS, HEADER_TIMEOUT_MS, HEARTBEAT_MS, LogFormat,
    MAX_AWAY_S, MAX_BINDINGS, MAX_CONNECTIONS, MAX_PEERS, MAX_SCHEDULES, MAX_SOCKET_PATH_BYTES, MAX_TOKENS,
    MAX_WAITING_BYTES, MIN_FREE_BYTES, MONTHLY_BYTES, OPENING_TIMEOUT_MS, RATE, RELOAD_S, SESSION_WAIT_MS,
    STALLED_TIMEOUT_MS, WARM_BYTES,
};
use toml::{Table, Value};

const ACCOUNT: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "ffffffffffffffffffffffffffffffff";

fn parse(text: &str, env: &[(&str, &str)]) -> Config {
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Config::parse(text, "/etc/littoral/l.toml", env).unwrap_or_else(|error| panic!("{error}"))
}

fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("shipped")
}

/// The path of each value: `http.listen`, and `http.tokens.account` for any entry of a list.
fn leaves(table: &Table) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    for (key, value) in table {
        let inner: Vec<_> = match value {
            Value::Table(table) => leaves_of(key, table),
            Value::Array(entries) if entries.iter().all(Value::is_table) => {
                entries.iter().filter_map(Value::as_table).flat_map(|entry| leaves_of(key, entry)).collect()
            }
            leaf => vec![(key.clone(), leaf.clone())],
        };
        leaves.extend(inner);
    }
    leaves
}

fn leaves_of(key: &str, table: &Table) -> Vec<(String, Value)> {
    leaves(table).into_iter().map(|(path, value)| (format!("{key}.{path}"), value)).collect()
}

/// The comment above each key of `example.toml`, on one line.
fn comments(text: &str) -> BTreeMap<String, String> {
    let (mut section, mut comment, mut comments) = (String::new(), String::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(words) = line.strip_prefix('#') {
            comment.push_str(words);
        } else if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).to_string();
            comments.insert(section.clone(), std::mem::take(&mut comment));
        } else if let Some((key, _)) = line.split_once(" = ") {
            comments.insert(format!("{section}.{key}"), std::mem::take(&mut comment));
        } else {
            comment.clear();
        }
    }
    comments
}

#[test]
fn the_example_names_every_key_there_is() {
    let text = shipped("example.toml");
    let example: Table = text.parse().expect("TOML");
    let keys = |table: &Table| BTreeSet::from_iter(leaves(table).into_keys());
    let all: Table = parse(&text, &[]).to_toml().parse().expect("TOML");
    assert_eq!(keys(&example), keys(&all));
}

#[test]
fn the_example_says_of_each_key_whether_it_is_required_and_its_default_is_the_default() {
    let text = shipped("example.toml");
    let required = format!(
        "[node]\npop = \"fra1\"\ndata_dir = \"d\"\nidentity_dir = \"i\"\n[[http.tokens]]\naccount = \"{ACCOUNT}\"\ntoken = \"t\"\n\
         [http.tls]\ncertificate = \"c\"\nkey = \"k\"\n\
         [[http.bindings]]\nnamespace = \"{ACCOUNT}\"\nlisten = \"unix:s\"\n\
         [[replication.peers]]\npop = \"p\"\naddress = \"p:1\"\n\
         [[budgets.schedules]]\nlinks = \"node\"\nfrom = \"00:00\"\nto = \"24:00\"\nbytes_per_s = 16384"
    );
    let defaults = leaves(&parse(&required, &[]).to_toml().parse().expect("TOML"));
    let comments = comments(&text);
    for (path, value) in leaves(&text.parse().expect("TOML")) {
        let comment = comments.get(&path).unwrap_or_else(|| panic!("{path} has no comment"));
        match (comment.contains(" Required."), comment.contains(" The default.")) {
            (true, false) => {}
            (false, true) => assert_eq!(Some(&value), defaults.get(&path), "{path}"),
            _ => panic!("{path} must be said to be either \"Required.\" or \"The default.\": {comment}"),
        }
    }
}

#[test]
fn the_example_states_each_bound() {
    let comments = comments(&shipped("example.toml"));
    let check = |path: &str, bound: String| {
        assert!(comments[path].contains(&bound), "{path} lacks {bound:?}: {}", comments[path])
    };
    let range = |bounds: std::ops::RangeInclusive<u64>, unit: &str| {
        format!(" {} to {} {unit}", bounds.start(), bounds.end())
    };
    check(
        "http.max_connections",
        range((*MAX_CONNECTIONS.start()).into()..=(*MAX_CONNECTIONS.end()).into(), "connections"),
    );
    check("http.header_timeout_ms", range(HEADER_TIMEOUT_MS, "milliseconds"));
    check("http.opening_timeout_ms", range(OPENING_TIMEOUT_MS, "milliseconds"));
    check("http.stalled_timeout_ms", range(STALLED_TIMEOUT_MS, "milliseconds"));
    check("http.session_wait_ms", range(SESSION_WAIT_MS, "milliseconds"));
    check("http.drain_s", range(DRAIN_S, "seconds"));
    check("http.tls.reload_s", range(RELOAD_S, "seconds"));
    check("replication.heartbeat_ms", range(HEARTBEAT_MS, "milliseconds"));
    check("replication.gather_ms", range(GATHER_MS, "milliseconds"));
    check("replication.epoch_ms", range(EPOCH_MS, "milliseconds"));
    check("replication.max_away_s", range(MAX_AWAY_S, "seconds"));
    check("replication.max_waiting_bytes", range(MAX_WAITING_BYTES, "bytes"));
    for budget in ["budgets.node", "budgets.region", "budgets.inter_region", "budgets.metered"] {
        check(&format!("{budget}_bytes_per_s"), range(RATE, "bytes a second"));
    }
    for links in ["node", "region", "inter_region", "metered"] {
        check(&format!("budgets.monthly.{links}_bytes"), range(MONTHLY_BYTES, "bytes"));
    }
    check("budgets.schedules.bytes_per_s", range(RATE, "bytes a second"));
    check("budgets.schedules", format!(" {MAX_SCHEDULES} at most"));
    check("replication.peers.bytes_per_s", range(RATE, "bytes a second"));
    check("storage.cache_bytes", range(CACHE_BYTES, "bytes"));
    check("storage.min_free_bytes", range(MIN_FREE_BYTES, "bytes"));
    check("storage.chunk_grace_s", range(CHUNK_GRACE_S, "seconds"));
    check("documents.max_bytes", range(DOCUMENT_BYTES, "bytes"));
    check("documents.max_ops", range(DOCUMENT_OPS, "operations"));
    check("documents.warm_bytes", range(WARM_BYTES, "bytes"));
    check("conflicts.kept_days", range(CONFLICT_DAYS, "days"));
    check("conflicts.max_rows", format!(" {} to {}.", CONFLICT_ROWS.start(), CONFLICT_ROWS.end()));
    check("conflicts.max_bytes", range(CONFLICT_BYTES, "bytes"));
    check("http.tokens", format!(" {MAX_TOKENS} at most"));
    check("replication.peers", format!(" {MAX_PEERS} at most"));
    check("http.bindings", format!(" {MAX_BINDINGS} at most"));
    check("http.bindings.listen", format!(" {MAX_SOCKET_PATH_BYTES} bytes"));
}

#[test]
fn the_local_cluster_is_three_pops_that_list_each_other() {
    let env = [("LITTORAL_HTTP_ACCOUNT", ACCOUNT), ("LITTORAL_HTTP_TOKEN", "t")];
    let pops = [1, 2, 3].map(|n| (n, parse(&shipped(&format!("pops/pop-{n}.toml")), &env)));
    let own = |(_, config): &(_, Config)| (config.node.pop.clone(), config.replication.listen.to_string());
    for pop in &pops {
        let (n, config) = pop;
        assert_eq!(config.node.pop.as_ref(), format!("pop-{n}"));
        assert_eq!(config.http.listen.to_string(), format!("127.0.0.1:{}", 8786 + n));
        assert_eq!(config.replication.listen.to_string(), format!("127.0.0.1:{}", 9786 + n));
        assert!(config.node.data_dir.ends_with(format!("littoral-cluster/pop-{n}/data")));
        assert!(config.node.identity_dir.ends_with(format!("littoral-cluster/pop-{n}/identity")));
        let peers = config.replication.peers.iter().map(|peer| (peer.pop.clone(), peer.address.clone()));
        let others = pops.iter().filter(|other| *other != pop).map(own);
        assert_eq!(peers.collect::<Vec<_>>(), others.collect::<Vec<_>>());
    }
}

#[test]
fn what_is_written_parses_back_to_the_same_settings() {
    let example = parse(&shipped("example.toml"), &[]);
    assert_eq!(parse(&example.to_toml(), &[]), example);
    // Here nothing is a default, so that no key can be forgotten on either way.
    let other = parse(
        &format!(
            "node = {{ pop = \"a\", region = \"r\", data_dir = \"d \\\" é\", identity_dir = \"../i\" }}\n\
             [http]\nlisten = \"[::1]:1\"\nmax_connections = 7\nheader_timeout_ms = 0x100\n\
             opening_timeout_ms = 0x101\nstalled_timeout_ms = 0x102\nsession_wait_ms = 0x103\ndrain_s = 11\n\
             tls = {{ certificate = \"c.pem\", key = \"k.pem\", reload_s = 12 }}\n\
             tokens = [{{ account = \"{}\", token = \"x\\\"y\" }}, {{ account = \"{ACCOUNT}\", token = \"z\", cluster = false }}]\n\
             bindings = [{{ namespace = \"{OTHER}\", listen = \"unix:kv.sock\", access = \"socket\" }}]\n\
             [replication]\nlisten = \"0.0.0.0:2\"\nheartbeat_ms = 1_000\ngather_ms = 7\nepoch_ms = 1_001\nmax_away_s = 1_002\nmax_waiting_bytes = 1_048_579\n\
             compression = \"none\"\n\
             peers = [{{ pop = \"b\", address = \"b:1\", path = \"metered\", bytes_per_s = 16385 }}]\n\
             [budgets]\nnode_bytes_per_s = 16386\nregion_bytes_per_s = 16387\n\
             inter_region_bytes_per_s = 16388\nmetered_bytes_per_s = 16389\nbeyond_cap_bytes_per_s = 16390\nburst_ms = 51\n\
             monthly = {{ node_bytes = 1048577, region_bytes = 1048578, inter_region_bytes = 1048579, metered_bytes = 1048580 }}\n\
             schedules = [{{ links = \"metered\", days = [\"sat\", \"sun\"], from = \"22:30\", to = \"06:05\", bytes_per_s = 16391 }}]\n\
             [storage]\ncache_bytes = 1048577\nmin_free_bytes = 1048578\nchunk_grace_s = 1_003\n\
             [conflicts]\nkept_days = 9\nmax_rows = 1_006\nmax_bytes = 1048581\n\
             [documents]\nmax_bytes = 1_029\nmax_ops = 1_005\nwarm_bytes = 1048580\n\
             [log]\nlevel = \"warn,quinn::x=off\"\nformat = \"json\"",
            ACCOUNT.to_uppercase()
        ),
        &[],
    );
    assert_eq!(parse(&other.to_toml(), &[]), other);
    assert_eq!(other.http.tokens[0].account.as_ref(), ACCOUNT);
    assert_eq!([0, 1].map(|index| other.http.tokens[index].cluster), [true, false]);
    assert_eq!((other.http.header_timeout_ms, other.replication.heartbeat_ms), (256, 1000));
    assert_eq!((other.replication.epoch_ms, other.replication.max_away_s), (1001, 1002));
    assert_eq!(other.replication.max_waiting_bytes, 1_048_579);
    assert_eq!(other.replication.compression, Compression::None);
    assert_eq!(other.log.format, LogFormat::Json);
    assert_eq!(other.http.bindings[0].listen.to_string(), "unix:/etc/littoral/kv.sock");
    let night = &other.budgets.schedules[0];
    assert_eq!((night.from.minutes(), night.to.minutes()), (22 * 60 + 30, 6 * 60 + 5));
    let (ours, defaults) =
        (leaves(&other.to_toml().parse().expect("TOML")), leaves(&example.to_toml().parse().expect("TOML")));
    let same: Vec<_> = ours.iter().filter(|(path, value)| defaults.get(*path) == Some(value)).collect();
    // The last token of each is the one `leaves` keeps, and both have the same account.
    assert!(same.iter().all(|(path, _)| *path == "http.tokens.account"), "{same:?}");
}

#[test]
fn a_relative_path_starts_at_the_folder_of_the_file() {
    let env = [
        ("LITTORAL_HTTP_ACCOUNT", ACCOUNT),
        ("LITTORAL_HTTP_TOKEN", "t"),
        ("LITTORAL_NODE_IDENTITY_DIR", "./i/"),
    ];
    let node = parse("[node]\npop = \"a\"\ndata_dir = \"./d//x/.\"", &env).node;
    assert_eq!(node.data_dir, Path::new("/etc/littoral/d/x"));
    assert_eq!(node.identity_dir, Path::new("/etc/littoral/i"));
    let node = parse("[node]\npop = \"a\"\ndata_dir = \"/var/d\"", &env).node;
    assert_eq!(node.data_dir, Path::new("/var/d"));

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("l.toml");
    let token = format!("[[http.tokens]]\naccount = \"{ACCOUNT}\"\ntoken = \"t\"");
    fs::write(&path, format!("[node]\npop = \"a\"\ndata_dir = \"d\"\nidentity_dir = \"i\"\n{token}"))
        .expect("written");
    assert_eq!(Config::load(&path).expect("complete").node.data_dir, folder.path().join("d"));
}

#[test]
fn each_variable_goes_before_the_file() {
    let text = shipped("example.toml");
    let mut example: BTreeMap<_, _> = leaves(&parse(&text, &[]).to_toml().parse().expect("TOML"));
    let lists = ["http.tokens.", "http.bindings.", "replication.peers.", "budgets.schedules."];
    example.retain(|path, _| !lists.iter().any(|list| path.starts_with(list)));
    for (path, value) in example {
        let changed = match value {
            // This one's default is its least.
            Value::Integer(number) if path == "budgets.beyond_cap_bytes_per_s" => (number + 1).to_string(),
            Value::Integer(number) => (number - 1).to_string(),
            Value::String(text) => match path.as_str() {
                "http.listen" | "replication.listen" => "127.0.0.2:1234".into(),
                "log.format" => "json".into(),
                "replication.compression" => "none".into(),
                "log.level" => "debug".into(),
                _ => format!("{text}2"),
            },
            other => panic!("{path} = {other}"),
        };
        let variable = format!("LITTORAL_{}", path.to_uppercase().replace('.', "_"));
        let config: Table = parse(&text, &[(&variable, &changed)]).to_toml().parse().expect("TOML");
        let written = leaves(&config)[&path].to_string();
        assert_eq!(written.trim_matches(['"', '\'']), changed, "{variable}");
    }
}

#[test]
fn the_token_of_the_environment_joins_those_of_the_file() {
    let env = [("LITTORAL_HTTP_ACCOUNT", ACCOUNT), ("LITTORAL_HTTP_TOKEN", "from-the-environment")];
    let text = shipped("example.toml");
    let tokens = parse(&text, &env).http.tokens;
    let expected = [
        parse(&text, &[]).http.tokens,
        parse(
            "",
            &[
                ("LITTORAL_NODE_POP", "a"),
                ("LITTORAL_NODE_DATA_DIR", "d"),
                ("LITTORAL_NODE_IDENTITY_DIR", "i"),
                env[0],
                env[1],
            ],
        )
        .http
        .tokens,
    ];
    assert_eq!(tokens, expected.concat());
}
