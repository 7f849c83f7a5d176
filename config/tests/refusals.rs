//! Every way a configuration is refused, with the exact words: place, what is wrong, what would be right.

use std::fs;

use littoral_config::{
    BURST_MS, CACHE_BYTES, CHUNK_GRACE_S, CONFLICT_BYTES, CONFLICT_DAYS, CONFLICT_ROWS, Config, ConfigError,
    DOCUMENT_BYTES, DOCUMENT_OPS, DRAIN_S, EPOCH_MS, HEADER_TIMEOUT_MS, HEARTBEAT_MS, MAX_AWAY_S,
    MAX_BINDINGS, MAX_CONNECTIONS, MAX_PEERS, MAX_PROBLEMS, MAX_SCHEDULES, MAX_SOCKET_PATH_BYTES, MAX_TOKENS,
    MAX_WAITING_BYTES, MIN_FREE_BYTES, MONTHLY_BYTES, OPENING_TIMEOUT_MS, RATE, RELOAD_S, SESSION_WAIT_MS,
    STALLED_TIMEOUT_MS, WARM_BYTES,
};

/// All that is required, so that a case's text holds only what it is about.
const COMPLETE: [(&str, &str); 5] = [
    ("LITTORAL_NODE_POP", "fra1"),
    ("LITTORAL_NODE_DATA_DIR", "data"),
    ("LITTORAL_NODE_IDENTITY_DIR", "identity"),
    ("LITTORAL_HTTP_ACCOUNT", "0123456789abcdef0123456789abcdef"),
    ("LITTORAL_HTTP_TOKEN", "t0ps3cret"),
];

fn parse(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::parse(text, "l.toml", env.iter().map(|(name, value)| (name.to_string(), value.to_string())))
}

#[track_caller]
fn check(text: &str, refusal: &str) {
    check_env(text, &[], refusal);
}

/// `env` is added to what is required, and replaces it where it has the same name.
#[track_caller]
fn check_env(text: &str, env: &[(&str, &str)], refusal: &str) {
    let kept = COMPLETE.iter().filter(|(name, _)| env.iter().all(|(other, _)| other != name));
    let env: Vec<_> = kept.chain(env).copied().collect();
    check_exactly(text, &env, refusal);
}

#[track_caller]
fn check_exactly(text: &str, env: &[(&str, &str)], refusal: &str) {
    let error = parse(text, env).expect_err("accepted");
    assert_eq!(error.to_string(), refusal);
    assert!(!format!("{error:?} {error}").contains("s3cret"), "a secret in {error:?}");
}

#[test]
fn the_complete_environment_needs_no_file() {
    let config = parse("", &COMPLETE).expect("complete");
    assert_eq!(config.http.tokens[0].token.reveal(), "t0ps3cret");
    assert_eq!(
        parse("[http]\ntokens = []\n[replication]\npeers = []\n[log]", &COMPLETE).ok().as_ref(),
        Some(&config)
    );
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn what_is_required_is_named_with_an_example() {
    check_exactly(
        "[log]\n[node]\nregion = \"eu\"",
        &[],
        "l.toml: http.tokens is empty: add [[http.tokens]] with account and token, or set LITTORAL_HTTP_ACCOUNT and LITTORAL_HTTP_TOKEN\n\
         l.toml:2: node.data_dir is missing: set it (or LITTORAL_NODE_DATA_DIR) to the folder that holds the store, such as \"data\"\n\
         l.toml:2: node.identity_dir is missing: set it (or LITTORAL_NODE_IDENTITY_DIR) to the folder `littoral node init` wrote, such as \"identity\"\n\
         l.toml:2: node.pop is missing: set it (or LITTORAL_NODE_POP) to the name of this PoP, such as \"fra1\"",
    );
    check(
        "[[http.tokens]]\n[[replication.peers]]\n",
        "l.toml:1: http.tokens[0].account is missing: set it to an account id of 32 hexadecimal digits\n\
         l.toml:1: http.tokens[0].token is missing: set it to the bearer token of that account\n\
         l.toml:2: replication.peers[0].address is missing: set it to the peer's host:port\n\
         l.toml:2: replication.peers[0].pop is missing: set it to the name of the peer's PoP",
    );
}

#[test]
fn what_is_not_toml_is_refused_at_its_line() {
    let check = |text: &str, at: &str| {
        check(text, &format!("{at}; a text stands in quotes, each key on its own line"))
    };
    check("[http]\nlisten = 127.0.0.1:1\n", "l.toml:2: not TOML: invalid float, expected nothing");
    check("[node]\npop = fra1\n", "l.toml:2: not TOML: invalid boolean, expected `false`");
    check("[http]\nlisten = \"\"\nlisten = \"\"\n", "l.toml:3: not TOML: duplicate key");
    check("token = \"s3cret\n", "l.toml:1: not TOML: invalid basic string, expected `\"`");
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    check("[http]\n\nlisten_on = \"\"", "l.toml:3: http.listen_on is unknown: did you mean http.listen?");
    check("[storage]\ncache = 1", "l.toml:2: storage.cache is unknown: did you mean storage.cache_bytes?");
    check("listen = \"\"", "l.toml:1: listen is unknown: did you mean http.listen?");
    check("[log]\ncolour = true", "l.toml:2: log.colour is unknown: known here: format, level");
    check(
        "[htpp]\nlisten = \"\"\n[htp-2]\n",
        "l.toml:1: htpp is unknown: did you mean http?\nl.toml:3: htp-2 is unknown: known here: budgets, conflicts, documents, http, log, node, replication, storage",
    );
    check(
        "[metrics]",
        "l.toml:1: metrics is unknown: known here: budgets, conflicts, documents, http, log, node, replication, storage",
    );
    check("\"http.listen\" = \"\"", "l.toml:1: \"http.listen\" is unknown: no key of ours needs quotes");
    check(
        "[[replication.peer]]\npop = \"a\"",
        "l.toml:1: replication.peer is unknown: did you mean replication.peers?",
    );
    check(
        "[[replication.peers]]\npop = \"a\"\naddress = \"a:1\"\nregion = \"eu\"",
        "l.toml:4: replication.peers[0].region is unknown: did you mean node.region?",
    );
}

#[test]
fn a_value_of_another_type_is_refused() {
    check("[http]\nlisten = 8787", "l.toml:2: http.listen is a number: write a text in quotes");
    check("[http.listen]\nport = 1", "l.toml:1: http.listen is a table: write a text in quotes");
    check("[log]\nlevel = [\"info\"]", "l.toml:2: log.level is a list: write a text in quotes");
    let token = format!("[[http.tokens]]\naccount = \"{}\"\ntoken = \"t\"\n", "12".repeat(16));
    check(
        &format!("{token}cluster = \"false\""),
        "l.toml:4: http.tokens[0].cluster is a text: write true or false, without quotes",
    );
    check(
        "[storage]\ncache_bytes = \"64 MiB\"",
        "l.toml:2: storage.cache_bytes is a text: write a whole number, without quotes",
    );
    check(
        "[storage]\ncache_bytes = 6.4e7",
        "l.toml:2: storage.cache_bytes is a fraction: write a whole number, without quotes",
    );
    check(
        "[storage]\ncache_bytes = true",
        "l.toml:2: storage.cache_bytes is true or false: write a whole number, without quotes",
    );
    check(
        "[storage]\ncache_bytes = 2026-01-01",
        "l.toml:2: storage.cache_bytes is a date: write a whole number, without quotes",
    );
    check("http = \"127.0.0.1:1\"", "l.toml:1: http is a text: write [http] above its keys");
    check("[[http]]\nlisten = \"127.0.0.1:1\"", "l.toml:1: http is a list: write [http] above its keys");
    check(
        "[replication.peers]\npop = \"a\"",
        "l.toml:1: replication.peers is no list of tables: write [[replication.peers]] above each",
    );
    check(
        "[http]\ntokens = [\"s3cret\"]",
        "l.toml:2: http.tokens is no list of tables: write [[http.tokens]] above each",
    );
}

#[test]
fn names_and_addresses_are_refused_with_their_grammar() {
    let label = "is not a DNS label: use 1 to 63 lower-case letters, digits and inner hyphens";
    check("[node]\nregion = \"EU\"", &format!("l.toml:2: node.region = \"EU\" {label}"));
    check_env(
        "",
        &[("LITTORAL_NODE_POP", "fra 1")],
        &format!("LITTORAL_NODE_POP: node.pop = \"fra 1\" {label}"),
    );
    let long = "x".repeat(81);
    check_env(
        "",
        &[("LITTORAL_NODE_POP", &long)],
        &format!("LITTORAL_NODE_POP: node.pop = \"{}\"... {label}", &long[1..]),
    );
    let address = "is not an address: use IP:port, such as 127.0.0.1:8787 or [::]:8787";
    check(
        "[http]\nlisten = \"localhost:8787\"",
        &format!("l.toml:2: http.listen = \"localhost:8787\" {address}"),
    );
    check(
        "[replication]\nlisten = \":9787\"",
        &format!("l.toml:2: replication.listen = \":9787\" {address}"),
    );
    check(
        "[[replication.peers]]\npop = \"a\"\naddress = \"a\"",
        "l.toml:3: replication.peers[0].address = \"a\" is not host:port: use a name, an IPv4 or a [bracketed IPv6] address, and a port from 1 to 65535",
    );
    check_env(
        "",
        &[("LITTORAL_NODE_DATA_DIR", "")],
        "LITTORAL_NODE_DATA_DIR: node.data_dir = \"\" is not a path: name a folder",
    );
}

#[test]
fn a_bad_token_is_refused_without_being_shown() {
    check(
        "[[http.tokens]]\naccount = \"12\"\ntoken = \"s3cret s3cret\"",
        "l.toml:2: http.tokens[0].account = \"12\" is not an account id: use 32 hexadecimal digits\n\
         l.toml:3: http.tokens[0].token = (not shown) is not a token: use 1 to 256 visible ASCII characters without spaces",
    );
    check_env(
        "",
        &[("LITTORAL_HTTP_TOKEN", "s3cret s3cret"), ("LITTORAL_HTTP_ACCOUNT", "s3cret")],
        "LITTORAL_HTTP_ACCOUNT: the value is not an account id: use 32 hexadecimal digits\n\
         LITTORAL_HTTP_TOKEN: the value is not a token: use 1 to 256 visible ASCII characters without spaces",
    );
}

#[test]
fn half_a_token_in_the_environment_is_refused() {
    let half =
        |left_out: &str| Vec::from_iter(COMPLETE.iter().filter(|(name, _)| *name != left_out).copied());
    let check = |left_out: &str, refusal: &str| check_exactly("", &half(left_out), refusal);
    check("LITTORAL_HTTP_ACCOUNT", "LITTORAL_HTTP_TOKEN: set without LITTORAL_HTTP_ACCOUNT: set both");
    check("LITTORAL_HTTP_TOKEN", "LITTORAL_HTTP_ACCOUNT: set without LITTORAL_HTTP_TOKEN: set both");
}

#[test]
fn a_log_setting_that_would_be_misread_is_refused() {
    let level =
        "is not a log level: use off, error, warn, info, debug or trace, and module=level after commas";
    for wrong in ["inof", "", "info,", "info debug", "=info", "quinn=loud", "a=b=info"] {
        check(&format!("[log]\nlevel = \"{wrong}\""), &format!("l.toml:2: log.level = \"{wrong}\" {level}"));
    }
    check(
        "[log]\nformat = \"jsn\"",
        "l.toml:2: log.format = \"jsn\" is not a log format: did you mean \"json\"?",
    );
    check(
        "[[replication.peers]]\npop = \"b\"\naddress = \"b:1\"\npath = \"meterd\"",
        "l.toml:4: replication.peers[0].path = \"meterd\" is not a kind of path: did you mean \"metered\"?",
    );
    check(
        "[replication]\ngather_ms = 1001",
        "l.toml:2: replication.gather_ms = 1001 is out of bounds: use 0 to 1000 milliseconds",
    );
    check(
        "[replication]\ncompression = \"gzip\"",
        "l.toml:2: replication.compression = \"gzip\" is not a compression: use \"zstd\" or \"none\"",
    );
    check(
        "[log]\nformat = \"xml\"",
        "l.toml:2: log.format = \"xml\" is not a log format: use \"text\" or \"json\"",
    );
}

#[test]
fn numbers_are_refused_just_outside_their_bounds() {
    let cases: [(&str, &str, u64, u64, &str); 22] = [
        ("http", "max_connections", (*MAX_CONNECTIONS.start()).into(), (*MAX_CONNECTIONS.end()).into(), ""),
        ("http", "header_timeout_ms", *HEADER_TIMEOUT_MS.start(), *HEADER_TIMEOUT_MS.end(), " milliseconds"),
        (
            "http",
            "opening_timeout_ms",
            *OPENING_TIMEOUT_MS.start(),
            *OPENING_TIMEOUT_MS.end(),
            " milliseconds",
        ),
        (
            "http",
            "stalled_timeout_ms",
            *STALLED_TIMEOUT_MS.start(),
            *STALLED_TIMEOUT_MS.end(),
            " milliseconds",
        ),
        ("http", "session_wait_ms", *SESSION_WAIT_MS.start(), *SESSION_WAIT_MS.end(), " milliseconds"),
        ("http", "drain_s", *DRAIN_S.start(), *DRAIN_S.end(), " seconds"),
        ("replication", "heartbeat_ms", *HEARTBEAT_MS.start(), *HEARTBEAT_MS.end(), " milliseconds"),
        ("replication", "epoch_ms", *EPOCH_MS.start(), *EPOCH_MS.end(), " milliseconds"),
        ("replication", "max_away_s", *MAX_AWAY_S.start(), *MAX_AWAY_S.end(), " seconds"),
        ("replication", "max_waiting_bytes", *MAX_WAITING_BYTES.start(), *MAX_WAITING_BYTES.end(), " bytes"),
        ("budgets", "node_bytes_per_s", *RATE.start(), *RATE.end(), " bytes a second"),
        ("budgets", "beyond_cap_bytes_per_s", *RATE.start(), *RATE.end(), " bytes a second"),
        ("budgets", "burst_ms", *BURST_MS.start(), *BURST_MS.end(), " milliseconds"),
        ("budgets.monthly", "metered_bytes", *MONTHLY_BYTES.start(), *MONTHLY_BYTES.end(), " bytes"),
        ("storage", "cache_bytes", *CACHE_BYTES.start(), *CACHE_BYTES.end(), " bytes"),
        ("storage", "min_free_bytes", *MIN_FREE_BYTES.start(), *MIN_FREE_BYTES.end(), " bytes"),
        ("storage", "chunk_grace_s", *CHUNK_GRACE_S.start(), *CHUNK_GRACE_S.end(), " seconds"),
        ("documents", "max_bytes", *DOCUMENT_BYTES.start(), *DOCUMENT_BYTES.end(), " bytes"),
        ("documents", "max_ops", *DOCUMENT_OPS.start(), *DOCUMENT_OPS.end(), ""),
        ("documents", "warm_bytes", *WARM_BYTES.start(), *WARM_BYTES.end(), " bytes"),
        ("conflicts", "max_rows", *CONFLICT_ROWS.start(), *CONFLICT_ROWS.end(), ""),
        ("conflicts", "max_bytes", *CONFLICT_BYTES.start(), *CONFLICT_BYTES.end(), " bytes"),
    ];
    for (section, key, least, most, unit) in cases {
        for number in [least, most] {
            let text = format!("[{section}]\n{key} = {number}");
            parse(&text, &COMPLETE).unwrap_or_else(|error| panic!("{error}"));
        }
        for number in [least - 1, most + 1, 0, i64::MAX as u64] {
            let refusal = format!("{section}.{key} = {number} is out of bounds: use {least} to {most}{unit}");
            check(&format!("[{section}]\n{key} = {number}"), &format!("l.toml:2: {refusal}"));
        }
    }
    for days in [*CONFLICT_DAYS.start(), 1, *CONFLICT_DAYS.end()] {
        parse(&format!("[conflicts]\nkept_days = {days}"), &COMPLETE)
            .unwrap_or_else(|error| panic!("{error}"));
    }
    check(
        "[conflicts]\nkept_days = 367",
        "l.toml:2: conflicts.kept_days = 367 is out of bounds: use 0 to 366 days",
    );
    check(
        "[storage]\ncache_bytes = -1",
        "l.toml:2: storage.cache_bytes = -1 is out of bounds: use 1048576 to 1099511627776 bytes",
    );
    check_env(
        "",
        &[("LITTORAL_REPLICATION_HEARTBEAT_MS", "1s")],
        "LITTORAL_REPLICATION_HEARTBEAT_MS: replication.heartbeat_ms = \"1s\" is out of bounds: use 10 to 60000 milliseconds",
    );
}

#[test]
fn a_list_may_be_full_but_no_longer() {
    let peers = |count: usize| -> String {
        (0..count).map(|n| format!("[[replication.peers]]\npop = \"p{n}\"\naddress = \"p{n}:1\"\n")).collect()
    };
    assert_eq!(
        parse(&peers(MAX_PEERS), &COMPLETE).map(|config| config.replication.peers.len()).ok(),
        Some(MAX_PEERS)
    );
    check(&peers(MAX_PEERS + 1), "l.toml:1: replication.peers has 65 entries: use 64 at most");
    let tokens = "[[http.tokens]]\naccount = \"0123456789abcdef0123456789abcdef\"\ntoken = \"t\"\n";
    let binding = format!("[[http.bindings]]\nnamespace = \"{}\"\nlisten = \"[::1]:0\"\n", "a".repeat(32));
    assert!(parse(&binding.repeat(MAX_BINDINGS), &COMPLETE).is_ok());
    check(&binding.repeat(MAX_BINDINGS + 1), "l.toml:1: http.bindings has 257 entries: use 256 at most");
    assert!(parse(&tokens.repeat(MAX_TOKENS), &COMPLETE[..3]).is_ok());
    check(&tokens.repeat(MAX_TOKENS + 1), "l.toml:1: http.tokens has 1025 entries: use 1024 at most");
}

#[test]
fn a_binding_is_refused_with_the_key_and_what_to_write() {
    let id = "0123456789abcdef0123456789abcdef";
    let binding = |listen: &str| format!("[[http.bindings]]\nnamespace = \"{id}\"\nlisten = \"{listen}\"\n");
    check(
        "[[http.bindings]]\nnamespace = \"demo\"\nlisten = \"localhost:1\"\naccess = \"sokcet\"",
        "l.toml:2: http.bindings[0].namespace = \"demo\" is not a namespace id: use 32 hexadecimal digits, as `littoral kv namespace list` shows them\n\
         l.toml:3: http.bindings[0].listen = \"localhost:1\" is not an address: use IP:port, such as 127.0.0.1:9001, or unix:PATH\n\
         l.toml:4: http.bindings[0].access = \"sokcet\" is not a kind of access: did you mean \"socket\"?",
    );
    check(
        "[[http.bindings]]",
        "l.toml:1: http.bindings[0].listen is missing: set it to where workerd connects, such as \"127.0.0.1:9001\" or \"unix:kv.sock\"\n\
         l.toml:1: http.bindings[0].namespace is missing: set it to the id of the namespace",
    );
    check(
        &binding("unix:"),
        "l.toml:3: http.bindings[0].listen = \"unix:\" names no file: use unix:PATH, such as unix:kv.sock",
    );
    let path = |bytes: usize| format!("/{}", "s".repeat(bytes - 1));
    let longest = path(MAX_SOCKET_PATH_BYTES);
    assert!(parse(&binding(&format!("unix:{longest}")), &COMPLETE).is_ok());
    let too_long = path(MAX_SOCKET_PATH_BYTES + 1);
    let shown = &format!("unix:{too_long}")[..80];
    check(
        &binding(&format!("unix:{too_long}")),
        &format!(
            "l.toml:3: http.bindings[0].listen = \"{shown}\"... is a path of 104 bytes ({too_long}): a unix socket has 103 at most, so use a shorter one"
        ),
    );
}

#[test]
fn half_a_certificate_is_refused_and_none_is_plain_http() {
    assert_eq!(parse("", &COMPLETE).map(|config| config.http.tls).ok(), Some(None));
    check(
        "[http.tls]\ncertificate = \"c.pem\"",
        "l.toml:1: http.tls.key is missing: set it (or LITTORAL_HTTP_TLS_KEY) to the PEM file of its private key, such as \"tls-key.pem\"",
    );
    check_env(
        "",
        &[("LITTORAL_HTTP_TLS_KEY", "k.pem")],
        "l.toml: http.tls.certificate is missing: set it (or LITTORAL_HTTP_TLS_CERTIFICATE) to the PEM file of the certificate, such as \"tls.pem\"",
    );
    let with = |reload_s: u64| format!("[http.tls]\ncertificate = \"c\"\nkey = \"\"\nreload_s = {reload_s}");
    let empty = "l.toml:3: http.tls.key = \"\" is not a path: name a file";
    for in_bounds in [*RELOAD_S.start(), *RELOAD_S.end()] {
        check(&with(in_bounds), empty);
    }
    for out in [RELOAD_S.start() - 1, RELOAD_S.end() + 1] {
        let refusal = format!("l.toml:4: http.tls.reload_s = {out} is out of bounds: use 1 to 3600 seconds");
        check(&with(out), &format!("{empty}\n{refusal}"));
    }
}

/// A port is open to every process of the machine, and to web pages by way of a browser.
#[test]
fn a_port_without_a_token_is_refused() {
    let binding = |listen: &str| {
        let id = "0123456789abcdef0123456789abcdef";
        format!("[[http.bindings]]\nnamespace = \"{id}\"\nlisten = \"{listen}\"\naccess = \"socket\"")
    };
    assert!(parse(&binding("unix:kv.sock"), &COMPLETE).is_ok());
    check(
        &binding("127.0.0.1:9001"),
        "l.toml:4: http.bindings[0].access = \"socket\" would let in all who reach the port: set listen to a unix socket, or use \"token\"",
    );
}

#[test]
fn two_listeners_at_one_address_are_refused() {
    let binding = |listen: &str| {
        format!("[[http.bindings]]\nnamespace = \"{}\"\nlisten = \"{listen}\"\n", "a".repeat(32))
    };
    check(
        &binding("127.0.0.1:8787"),
        "l.toml:3: http.bindings[0].listen = 127.0.0.1:8787 is also http.listen: give each its own",
    );
    check(
        &(binding("unix:/a.sock") + &binding("unix:/./a.sock")),
        "l.toml:6: http.bindings[1].listen = unix:/a.sock is also http.bindings[0].listen: give each its own",
    );
    assert!(parse(&binding("127.0.0.1:0").repeat(2), &COMPLETE).is_ok());
}

#[test]
fn a_schedule_is_refused_with_the_key_and_what_to_write() {
    let schedule = |line: &str| {
        let keys = ["links = \"node\"", "from = \"08:00\"", "to = \"20:00\"", "bytes_per_s = 16384"];
        let key = line.split(' ').next().unwrap_or_default();
        let others = keys.into_iter().filter(|other| !other.starts_with(&format!("{key} ")));
        let lines: Vec<&str> = std::iter::once(line).chain(others).collect();
        format!("[[budgets.schedules]]\n{}", lines.join("\n"))
    };
    let check = |line: &str, wrong: &str| {
        check(&schedule(line), &format!("l.toml:2: budgets.schedules[0].{wrong}"));
    };
    let time = "is not a time of day: use HH:MM in UTC, from \"00:00\" to \"24:00\"";
    for wrong in ["8:00", "08:60", "24:01", "0800", "+8:00", "", "08:00:00"] {
        check(&format!("from = \"{wrong}\""), &format!("from = \"{wrong}\" {time}"));
        check(&format!("to = \"{wrong}\""), &format!("to = \"{wrong}\" {time}"));
    }
    check("from = \"24:00\"", "from = \"24:00\" is the end of a day, when no window begins: use \"00:00\"");
    check(
        "to = \"08:00\"",
        "to = \"08:00\" is also when it begins: give the window a length; for whole days use \"00:00\" and \"24:00\"",
    );
    check("days = \"mon\"", "days is a text: write a list of texts, such as [\"mon\", \"tue\"]");
    check("days = []", "days is empty: list the days it begins on, or leave the key out for every day");
    check("days = [\"mon\", \"mon\"]", "days has \"mon\" twice: list each day once");
    let day = "is not a day: use \"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\" or \"sun\"";
    check("days = [\"mon\", \"Monday\"]", &format!("days[1] = \"Monday\" {day}"));
    check("days = [1]", "days[0] is a number: write a text in quotes");
    check(
        "links = \"inter-region\"",
        "links = \"inter-region\" is no kind of links: did you mean \"inter_region\"?",
    );
    let kinds = "\"node\", \"region\", \"inter_region\", \"metered\"";
    check("links = \"x\"", &format!("links = \"x\" is no kind of links: use {kinds}"));
    check(
        "bytes_per_s = 16383",
        "bytes_per_s = 16383 is out of bounds: use 16384 to 107374182400 bytes a second",
    );
}

#[test]
fn what_a_schedule_must_have_is_named() {
    let path = "l.toml:1: budgets.schedules[0]";
    let refusal = [
        format!("{path}.bytes_per_s is missing: set it to what may be sent meanwhile, in bytes a second"),
        format!("{path}.from is missing: set it to when it begins in UTC, such as \"08:00\""),
        format!("{path}.links is missing: set it to \"node\", \"region\", \"inter_region\" or \"metered\""),
        format!("{path}.to is missing: set it to when it ends in UTC, such as \"20:00\""),
    ];
    check("[[budgets.schedules]]", &refusal.join("\n"));
    check(
        "[budgets.schedules]\nlinks = \"node\"",
        "l.toml:1: budgets.schedules is no list of tables: write [[budgets.schedules]] above each",
    );
    check(
        "[budgets.monthly]\nmetered_byte = 1048576",
        "l.toml:2: budgets.monthly.metered_byte is unknown: did you mean budgets.monthly.metered_bytes?",
    );
    let many = |count: usize| {
        "[[budgets.schedules]]\nlinks = \"node\"\nfrom = \"00:00\"\nto = \"24:00\"\nbytes_per_s = 16384\n"
            .repeat(count)
    };
    assert!(parse(&many(MAX_SCHEDULES), &COMPLETE).is_ok());
    check(&many(MAX_SCHEDULES + 1), "l.toml:1: budgets.schedules has 65 entries: use 64 at most");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    check_env(
        "[node]\nidentity_dir = \"./data/\"",
        &[("LITTORAL_NODE_IDENTITY_DIR", "./data/")],
        "LITTORAL_NODE_IDENTITY_DIR: node.identity_dir is also node.data_dir: give each its own folder",
    );
    check(
        "[replication]\nlisten = \"127.0.0.1:8787\"",
        "l.toml:2: replication.listen = 127.0.0.1:8787 is also http.listen: give each its own port",
    );
    check(
        "[[replication.peers]]\npop = \"fra1\"\naddress = \"fra:1\"",
        "l.toml:2: replication.peers[0].pop = \"fra1\" is this PoP itself: list only the others",
    );
    check(
        "[[replication.peers]]\npop = \"a\"\naddress = \"a:1\"\n[[replication.peers]]\npop = \"a\"\naddress = \"a:1\"",
        "l.toml:5: replication.peers[1].pop = \"a\" stands in replication.peers[0] already: list each peer once\n\
         l.toml:6: replication.peers[1].address = \"a:1\" stands in replication.peers[0] already: list each peer once",
    );
    let any_port = "[http]\nlisten = \"127.0.0.1:0\"\n[replication]\nlisten = \"127.0.0.1:0\"";
    assert!(parse(any_port, &COMPLETE).is_ok());
}

#[test]
fn an_unknown_variable_is_refused_with_the_nearest_one() {
    check_env(
        "",
        &[("LITTORAL_HTP_LISTEN", "x")],
        "LITTORAL_HTP_LISTEN: unknown variable: did you mean LITTORAL_HTTP_LISTEN?",
    );
    check_env(
        "",
        &[("LITTORAL_TOKENS", "s3cret")],
        "LITTORAL_TOKENS: unknown variable: did you mean LITTORAL_HTTP_TOKEN?",
    );
}

#[test]
fn the_variables_of_the_client_and_of_others_are_left_alone() {
    let others = [
        "LITTORAL_URL",
        "LITTORAL_TOKEN",
        "LITTORAL_CA",
        "LITTORAL_ACCOUNT",
        "LITTORAL_NAMESPACE",
        "PATH",
        "littoral_x",
    ];
    let env: Vec<_> = COMPLETE.into_iter().chain(others.map(|name| (name, "x"))).collect();
    assert_eq!(parse("", &env).ok(), parse("", &COMPLETE).ok());
}

#[test]
fn hostile_nesting_is_refused_rather_than_overflowing_the_stack() {
    let deep = 100_000;
    let check = |text: String, wrong: &str| {
        let error = parse(&text, &COMPLETE).expect_err("accepted").to_string();
        assert!(error.starts_with(wrong), "{}", &error[..error.len().min(200)]);
    };
    check(
        format!("x = {}1{}", "[".repeat(deep), "]".repeat(deep)),
        "l.toml:1: not TOML: cannot recurse further",
    );
    check(format!("[{}a]", "a.".repeat(deep)), "l.toml: not TOML: recursion limit");
}

#[test]
fn a_file_of_rubbish_is_refused_with_its_first_problems() {
    let rubbish: String = (0..50_000).map(|n| format!("key{n} = 1\n")).collect();
    let error = parse(&rubbish, &COMPLETE).expect_err("accepted").to_string();
    assert_eq!(error.lines().count(), MAX_PROBLEMS, "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |name: &str, bytes: &[u8], reason: &str| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("written");
        let error = Config::load(&path).expect_err("accepted").to_string();
        assert_eq!(error, format!("cannot read the configuration {}: {reason}", path.display()));
    };
    check(
        "large.toml",
        &vec![b'\n'; (littoral_config::MAX_FILE_BYTES + 1) as usize],
        "larger than 1048576 bytes",
    );
    check("latin1.toml", b"# \xe9", "stream did not contain valid UTF-8");
    let absent = folder.path().join("absent.toml");
    let error = Config::load(&absent).expect_err("accepted").to_string();
    assert!(
        error.starts_with(&format!("cannot read the configuration {}: No such file", absent.display())),
        "{error}"
    );
}
