//! Builds the program `littoral`, once for each test process, in the profile the tests are built in.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use serde_json::Value;

/// A program to use instead of building one. (Not `LITTORAL_...`: those are settings of a node.)
const OVERRIDE: &str = "TEST_LITTORAL_BINARY";

/// Variables cargo sets for the process of a test.
const OF_THE_TEST: [&str; 5] =
    ["CARGO_BIN_", "CARGO_CRATE_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_PRIMARY_"];

/// The path of the program.
pub fn binary() -> anyhow::Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BINARY.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(error) => Err(anyhow::anyhow!("{error}")),
    }
}

fn build() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(OVERRIDE) {
        return Ok(path.into());
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--package", "littoral-node", "--bin", "littoral", "--message-format", "json"]);
    cargo.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    // What cargo tells a test of its package would look to build scripts like a changed environment, and
    // have them run, and their crates built, again at each turn.
    for (name, _) in std::env::vars_os() {
        if OF_THE_TEST.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.stderr(Stdio::inherit()).output().context("running cargo")?;
    ensure!(output.status.success(), "littoral cannot be built");
    let messages = String::from_utf8(output.stdout)?;
    let executable =
        |line: &str| Some(serde_json::from_str::<Value>(line).ok()?["executable"].as_str()?.into());
    messages.lines().filter_map(executable).next_back().context("cargo named no executable")
}
