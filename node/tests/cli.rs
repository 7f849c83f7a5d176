//! The program itself, as a shell sees it: what it prints, where, and how it exits.

#![allow(clippy::expect_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const DONE: i32 = 0;
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const UNREACHABLE: i32 = 3;

/// How long a cluster may take to stop.
const STOP_TIME: Duration = Duration::from_secs(30);

fn littoral(folder: &Path, line: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_littoral"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LITTORAL_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).stdin(Stdio::null()).args(line).output().expect("the program starts")
}

/// Runs a line, and gives its standard output and standard error.
fn check(folder: &Path, line: &[&str], exit: i32) -> (String, String) {
    let output = littoral(folder, line);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(exit), "{line:?}\n{stdout}\n{stderr}");
    (stdout, stderr)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A port on which nobody listens.
fn closed_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn every_help_page_fits_and_the_first_tells_the_exit_codes() {
    let folder = folder();
    let (first, _) = check(folder.path(), &["--help"], DONE);
    assert!(first.contains("4  there is no such key, member, field, namespace, account or token"), "{first}");
    for line in [
        "",
        "serve",
        "dev",
        "cluster",
        "cluster init",
        "cluster join-token",
        "node",
        "node init",
        "status",
        "lag",
        "member",
        "member list",
        "member add",
        "member drain",
        "member remove",
        "member replace",
        "gc",
        "gc explain",
        "store",
        "store rebuild",
        "store dead-letters",
        "counter",
        "counter add",
        "counter get",
        "counter reset",
        "bounded",
        "bounded add",
        "bounded take",
        "bounded get",
        "bounded delete",
        "set",
        "set add",
        "set remove",
        "set list",
        "set contains",
        "map",
        "map put",
        "map get",
        "map remove",
        "map list",
        "doc",
        "doc get",
        "doc put",
        "doc merge",
        "doc patch",
        "doc history",
        "doc conflicts",
        "doc delete",
        "account",
        "account create",
        "account list",
        "account delete",
        "token",
        "token create",
        "token list",
        "token revoke",
        "token show",
        "kv",
        "kv get",
        "kv put",
        "kv delete",
        "kv batch",
        "kv list",
        "kv import",
        "kv export",
        "kv namespace",
        "kv namespace quota",
        "workers",
        "workers config",
        "config",
        "config check",
        "completions",
    ] {
        let words: Vec<_> = line.split(' ').filter(|word| !word.is_empty()).chain(["--help"]).collect();
        let (page, _) = check(folder.path(), &words, DONE);
        let usage_or_short = |text: &&str| text.starts_with("Usage:") || text.chars().count() <= 100;
        assert!(page.lines().all(|text| usage_or_short(&text)), "{line}\n{page}");
    }
}

#[test]
fn every_shell_has_completions() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (script, _) = check(folder.path(), &["completions", shell], DONE);
        assert!(script.contains("littoral") && script.contains("join-token"), "{shell}");
    }
}

#[test]
fn a_configuration_is_checked_and_mistakes_are_told_by_line() {
    let folder = folder();
    let good = "[node]\npop = \"a\"\ndata_dir = \"d\"\nidentity_dir = \"i\"\n\
                [[http.tokens]]\naccount = \"0123456789abcdef0123456789abcdef\"\ntoken = \"t\"\n";
    fs::write(folder.path().join("good.toml"), good).expect("written");
    fs::write(folder.path().join("bad.toml"), good.replace("data_dir", "data_folder")).expect("written");

    let (stdout, _) = check(folder.path(), &["config", "check", "good.toml"], DONE);
    assert_eq!(stdout, "good.toml is valid\n");
    let (stdout, _) = check(folder.path(), &["config", "check", "good.toml", "--json"], DONE);
    assert_eq!(stdout, "{\"file\":\"good.toml\",\"valid\":true}\n");
    let (_, stderr) = check(folder.path(), &["config", "check", "bad.toml"], FAILED);
    assert!(stderr.contains("bad.toml:3: node.data_folder is unknown"), "{stderr}");
    assert!(stderr.contains("\nhint: "), "{stderr}");
    let (_, stderr) = check(folder.path(), &["config", "check", "none.toml"], FAILED);
    assert!(stderr.starts_with("error: cannot read the configuration none.toml"), "{stderr}");
}

#[test]
fn a_pop_that_is_away_has_its_own_exit_code_and_a_hint() {
    let folder = folder();
    let url = format!("http://127.0.0.1:{}", closed_port());
    for words in [
        &["status"] as &[&str],
        &["lag"],
        &["kv", "get", "k", "--account", "a", "--namespace", "n"],
        &["workers", "config", "n", "--account", "a"],
    ] {
        let line = [words, &["--url", &url, "--token", "t"]].concat();
        let (_, stderr) = check(folder.path(), &line, UNREACHABLE);
        assert!(stderr.starts_with(&format!("error: no answer from {url}")), "{stderr}");
        assert!(stderr.contains("\nhint: is the PoP running?"), "{stderr}");
    }
}

#[test]
fn what_is_missing_is_named_with_its_flag_and_variable() {
    let folder = folder();
    for (line, flag, variable) in [
        (&["status"] as &[&str], "--token", "LITTORAL_TOKEN"),
        (&["kv", "get", "k", "--token", "t", "--namespace", "n"], "--account", "LITTORAL_ACCOUNT"),
        (&["kv", "get", "k", "--token", "t", "--account", "a"], "--namespace", "LITTORAL_NAMESPACE"),
        (&["workers", "config", "n", "--token", "t"], "--account", "LITTORAL_ACCOUNT"),
    ] {
        let (_, stderr) = check(folder.path(), line, USAGE);
        assert!(stderr.contains(&format!("hint: pass {flag}, or set {variable}")), "{stderr}");
    }
    check(folder.path(), &["no-such-command"], USAGE);
    check(folder.path(), &["status", "--url", "ftp://h", "--token", "t"], USAGE);
}

/// `--ca FILE` is of every command, and once went by the same name within as the file that is imported.
#[test]
fn a_file_to_import_is_not_taken_for_authorities() {
    let folder = folder();
    std::fs::write(folder.path().join("large.ndjson"), vec![b'\n'; 1 << 20]).expect("a file");
    let (url, id) = (format!("http://127.0.0.1:{}", closed_port()), "0".repeat(32));
    let names = ["--token", "t", "--account", &id, "--namespace", &id, "--url", &url];
    let (stdout, _) = check(folder.path(), &[&["kv", "import", "large.ndjson"], &names[..]].concat(), DONE);
    assert!(stdout.contains("imported 0 keys"), "{stdout}");
}

#[test]
fn identities_are_made_from_the_command_line_and_never_overwritten() {
    let folder = folder();
    check(folder.path(), &["cluster", "init", "c"], DONE);
    check(folder.path(), &["cluster", "init", "c"], FAILED);
    let (token, _) = check(folder.path(), &["cluster", "join-token", "c", "--pop", "ams"], DONE);
    check(folder.path(), &["node", "init", "n", "--token", token.trim()], DONE);
    check(folder.path(), &["node", "init", "n", "--token", token.trim()], FAILED);
    check(folder.path(), &["node", "init", "m", "--token", "nonsense"], FAILED);
}

#[test]
fn dev_names_the_port_that_is_in_use_and_leaves_nothing_behind() {
    let folder = folder();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    // Far below, so that the ports of both kinds fit whatever port was taken.
    let line = ["dev", "--pops", "1", "--dir", "d", "--http-port", &port, "--quic-port", "1024"];
    let (_, stderr) = check(folder.path(), &line, FAILED);
    assert!(stderr.contains(&format!("error: port {port} (TCP) is in use")), "{stderr}");
    assert!(stderr.contains("hint: choose another with --http-port"), "{stderr}");
    assert!(!folder.path().join("d").exists());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_littoral"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stderr, b"");
}

#[test]
fn no_pop_outlives_dev_however_it_ends() {
    for (signal, exit) in [(Signal::INT, Some(DONE)), (Signal::TERM, Some(DONE)), (Signal::KILL, None)] {
        let folder = folder();
        let (http, quic) = (closed_port().to_string(), closed_port().to_string());
        let mut dev = Command::new(env!("CARGO_BIN_EXE_littoral"))
            .args(["dev", "--json", "--pops", "1", "--http-port", &http, "--quic-port", &quic])
            .env("TMPDIR", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("dev starts");
        let mut first_line = String::new();
        let mut stdout = BufReader::new(dev.stdout.take().expect("a pipe"));
        stdout.read_line(&mut first_line).expect("a line");
        assert!(first_line.contains("\"pop1\""), "{first_line}");

        kill_process(Pid::from_child(&dev), signal).expect("dev runs");
        assert_eq!(dev.wait().expect("it ends").code(), exit, "{signal:?}");
        // A clean end has waited for the PoP; after a kill the PoP finds out by itself.
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, http.parse().expect("a port"))).is_ok() {
            assert!(exit.is_none() && begun.elapsed() < STOP_TIME, "{signal:?}: the PoP still serves");
            std::thread::sleep(Duration::from_millis(20));
        }
        let is_left = fs::read_dir(folder.path()).expect("a folder").next().is_some();
        assert_eq!(is_left, exit.is_none(), "{signal:?}: only a killed dev leaves its folder");
    }
}
