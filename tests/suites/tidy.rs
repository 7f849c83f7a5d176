//! The house rules that a machine can check: arrows between crates, who may use what, and how files are laid out.
//!
//! Each rule is a function from files to findings, so that it is tried on made-up files first and on the
//! repository then. A finding names file, line and rule. What clippy and rustfmt check is not repeated here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use toml::{Table, Value};

/// Which of our crates each may use, by folder: DESIGN's arrows, and nothing else.
const ARROWS: [(&str, &[&str]); 8] = [
    ("config", &[]),
    ("client", &[]),
    ("replication", &[]),
    ("node", &["config", "client", "replication"]),
    ("tests", &["config", "client", "replication", "node"]),
    ("benches", &["config", "client", "replication", "node"]),
    ("tests/fuzz", &["tests"]),
    ("tests/clients/rust", &[]),
];
/// All that the core is built from; automerge is a CRDT without I/O, and its changes are compressed with flate2 and named by
/// sha2. No runtime, network, store or source of randomness may join.
const CORE_DEPENDENCIES: [&str; 8] =
    ["automerge", "bincode", "blake3", "bytes", "crc32fast", "flate2", "sha2", "thiserror"];
/// What the core's own tests may use beside that.
const CORE_DEV_DEPENDENCIES: [&str; 1] = ["proptest"];
/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "manager", "misc", "types"];
/// The most lines of a file above its unit tests.
const MAX_LINES: usize = 600;
/// What tells cargo how to build, beside the manifests.
const BUILD_FILES: [&str; 2] = [".cargo/config.toml", ".ci/run"];
/// The only files that may speak of the planted bugs: who declares them, and who builds and looks for them.
const PLANTING_FILES: [&str; 9] = [
    "Cargo.toml",
    "tests/fuzz/Cargo.toml",
    "tests/clients/rust/Cargo.toml",
    "replication/src/lib.rs",
    "replication/src/planted.rs",
    "tests/scripts/planted-rustc",
    "tests/src/bin/planted.rs",
    "tests/src/sim/mutants.rs",
    "tests/suites/tidy.rs",
];
/// The fewest words that can tell what a file is for.
const MIN_OPENING_WORDS: usize = 3;

/// A file by its path from the root, with `/`.
struct File {
    path: String,
    text: String,
}

type Rule = fn(&[File]) -> Vec<String>;

/// Tries a rule on made-up files.
#[track_caller]
fn check(rule: Rule, files: &[(&str, &str)], findings: &[&str]) {
    let files: Vec<_> =
        files.iter().map(|(path, text)| File { path: path.to_string(), text: text.to_string() }).collect();
    assert_eq!(rule(&files), findings);
}

/// Holds the repository to a rule.
#[track_caller]
fn hold(rule: Rule) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace is around this crate");
    let mut files = Vec::new();
    read_files(root, "", &mut files);
    for path in BUILD_FILES {
        let text = fs::read_to_string(root.join(path)).expect("the repository has it");
        files.push(File { path: path.into(), text });
    }
    assert!(
        files.iter().any(|file| file.path == "tests/suites/tidy.rs"),
        "found {} files, but not this one",
        files.len()
    );
    let findings = rule(&files);
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn crates_use_only_the_crates_that_the_arrows_allow() {
    let workspace = "[workspace.dependencies]\nconfig = { path = \"config\" }\nlittoral = { path = \"client\" }\nbytes = \"1\"";
    check(
        arrows,
        &[
            ("Cargo.toml", workspace),
            (
                "client/Cargo.toml",
                "[dependencies]\nbytes.workspace = true\n[target.'cfg(unix)'.dev-dependencies]\nconfig.workspace = true",
            ),
            ("config/Cargo.toml", "[build-dependencies]\nclient = { path = \"../client\" }"),
            ("node/Cargo.toml", "[dependencies]\nconfig.workspace = true\nlittoral.workspace = true"),
            ("extra/Cargo.toml", "[package]"),
            (
                "tests/fuzz/Cargo.toml",
                "[dependencies]\ntests = { path = \"..\" }\nnode = { path = \"../../node\" }",
            ),
        ],
        &[
            "client/Cargo.toml:4: client may not depend on config (DESIGN, section 1)",
            "config/Cargo.toml:2: config may not depend on client (DESIGN, section 1)",
            "extra/Cargo.toml:1: a crate without arrows: draw them in DESIGN, section 1, and in tidy.rs",
            "tests/fuzz/Cargo.toml:3: tests/fuzz may not depend on node (DESIGN, section 1)",
        ],
    );
    hold(arrows);
}

#[test]
fn the_core_is_built_from_its_short_list() {
    check(
        core_dependencies,
        &[(
            "replication/Cargo.toml",
            "[dependencies]\nbytes.workspace = true\nrand = \"0.9\"\n[dev-dependencies]\ntokio.workspace = true\nproptest.workspace = true",
        )],
        &[
            "replication/Cargo.toml:3: the core may not depend on rand: see CORE_DEPENDENCIES in tidy.rs",
            "replication/Cargo.toml:5: the core may not depend on tokio: see CORE_DEPENDENCIES in tidy.rs",
            "replication/Cargo.toml:1: the core no longer depends on automerge: take it out of tidy.rs",
            "replication/Cargo.toml:1: the core no longer depends on bincode: take it out of tidy.rs",
            "replication/Cargo.toml:1: the core no longer depends on blake3: take it out of tidy.rs",
            "replication/Cargo.toml:1: the core no longer depends on crc32fast: take it out of tidy.rs",
            "replication/Cargo.toml:1: the core no longer depends on flate2: take it out of tidy.rs",
            "replication/Cargo.toml:1: the core no longer depends on sha2: take it out of tidy.rs",
            "replication/Cargo.toml:1: the core no longer depends on thiserror: take it out of tidy.rs",
        ],
    );
    hold(core_dependencies);
}

#[test]
fn each_crate_takes_the_lints_of_the_workspace() {
    check(
        lints,
        &[
            ("a/Cargo.toml", "[lints]\nworkspace = true"),
            ("b/Cargo.toml", "[package]"),
            ("Cargo.toml", "[workspace]"),
        ],
        &["b/Cargo.toml:1: without [lints] workspace = true"],
    );
    check(
        lints,
        &[
            ("a/Cargo.toml", "[workspace]\n[lints.rust]\nx = \"warn\""),
            ("b/Cargo.toml", "[workspace]\n[lints.rust]\nx = \"deny\""),
            ("Cargo.toml", "[workspace.lints.rust]\nx = \"warn\""),
        ],
        &["b/Cargo.toml:1: a workspace of its own, whose lints are not those of the root: repeat them"],
    );
    check(
        lints,
        &[("clippy.toml", "a = 1\nb = true"), ("c/clippy.toml", "a = 1\nb = false\nd = 1")],
        &["c/clippy.toml:2: hides b = true of the root's clippy.toml: repeat it"],
    );
    hold(lints);
}

#[test]
fn one_file_knows_sled() {
    check(
        one_file_uses_sled,
        &[
            ("node/src/a.rs", "//! sled::Db is not used here\nuse sledge::x;"),
            ("node/src/b.rs", "//! x\nuse sled::Db;\nfn f(t: &sled::Tree) {}"),
            ("node/src/c.rs", "//! x\nuse sled;"),
        ],
        &["node/src/c.rs:2: uses sled, as node/src/b.rs does: only one file may (DESIGN, section 7)"],
    );
    hold(one_file_uses_sled);
}

#[test]
fn only_the_codec_knows_bincode() {
    check(
        only_the_codec_uses_bincode,
        &[
            ("replication/src/codec.rs", "use bincode::Encode;"),
            ("replication/src/codec/frame.rs", "use bincode::Encode;"),
            ("replication/src/codecs.rs", "// bincode is elsewhere\n#[derive(bincode::Encode)]"),
        ],
        &["replication/src/codecs.rs:2: uses bincode: only replication/src/codec.rs may (DESIGN, section 4)"],
    );
    hold(only_the_codec_uses_bincode);
}

#[test]
fn no_feature_and_no_default_plants_a_bug() {
    check(
        planted_bugs,
        &[
            ("Cargo.toml", "check-cfg = [\"cfg(planted_bugs)\"]"),
            ("replication/Cargo.toml", "[features]\nplanted_bugs = []"),
            ("replication/build.rs", "println!(\"cargo::rustc-cfg=planted_bugs\");"),
            (".cargo/config.toml", "[build]\nrustflags = [\"--cfg\", \"planted_bugs\"]"),
            (".ci/run", "RUSTC_WORKSPACE_WRAPPER=tests/scripts/planted-rustc cargo build"),
            ("node/src/a.rs", "if cfg!(planted_bugs) {}"),
        ],
        &[
            "replication/Cargo.toml:2: only the simulator's own build may plant bugs",
            "replication/build.rs:1: only the simulator's own build may plant bugs",
            ".cargo/config.toml:2: only the simulator's own build may plant bugs",
            ".ci/run:1: only the simulator's own build may plant bugs",
            "node/src/a.rs:1: only the simulator's own build may plant bugs",
        ],
    );
    check(
        planted_bugs,
        &[("Cargo.toml", "[workspace.features]\nplanted_bugs = []")],
        &["Cargo.toml:2: only the simulator's own build may plant bugs"],
    );
    hold(planted_bugs);
    let is_planted = cfg!(planted_bugs);
    assert!(!is_planted, "this build has planted bugs in it");
}

#[test]
fn a_file_opens_with_what_it_is_for() {
    check(
        openings,
        &[
            ("a.rs", "//! What this file\n//! is for."),
            ("b.rs", "use x;"),
            ("c.rs", "//! stub"),
            ("d.rs", "//! Two words\n//!\n//! and then another paragraph."),
            ("e.rs", ""),
        ],
        &[
            "b.rs:1: does not open with a //! paragraph that tells what the file is for",
            "c.rs:1: does not open with a //! paragraph that tells what the file is for",
            "d.rs:1: does not open with a //! paragraph that tells what the file is for",
            "e.rs:1: does not open with a //! paragraph that tells what the file is for",
        ],
    );
    hold(openings);
}

#[test]
fn names_say_what_is_inside() {
    check(
        names,
        &[
            ("node/src/http/mod.rs", ""),
            ("node/src/util.rs", ""),
            ("tests/common/a.rs", ""),
            ("a.rs", "mod utility;\npub(crate) mod helpers;\n    mod types {\n// mod util;\nlet common = 1;"),
        ],
        &[
            "node/src/http/mod.rs:1: no mod.rs: write http.rs beside http/",
            "node/src/util.rs:1: \"util\" says nothing: name what is inside",
            "tests/common/a.rs:1: \"common\" says nothing: name what is inside",
            "a.rs:2: \"helpers\" says nothing: name what is inside",
            "a.rs:3: \"types\" says nothing: name what is inside",
        ],
    );
    hold(names);
}

#[test]
fn a_file_is_short_enough_to_read() {
    let lines = |count: usize| "x\n".repeat(count);
    let with_tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}", lines(MAX_LINES), lines(MAX_LINES));
    let with_a_cfg_inside = format!("    #[cfg(test)]\n{}", lines(MAX_LINES));
    check(
        lengths,
        &[
            ("a.rs", &lines(MAX_LINES)),
            ("b.rs", &lines(MAX_LINES + 1)),
            ("c.rs", &with_tests),
            ("d.rs", &with_a_cfg_inside),
        ],
        &[
            "b.rs:601: more than 600 lines above its tests: split it",
            "d.rs:601: more than 600 lines above its tests: split it",
        ],
    );
    hold(lengths);
}

fn arrows(files: &[File]) -> Vec<String> {
    let folders = our_folders(files);
    let mut findings = Vec::new();
    for (folder, manifest) in members(files) {
        let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| *from == folder) else {
            findings.push(finding(
                manifest,
                1,
                "a crate without arrows: draw them in DESIGN, section 1, and in tidy.rs",
            ));
            continue;
        };
        for (name, value) in
            dependencies(&manifest.text, &["dependencies", "dev-dependencies", "build-dependencies"])
        {
            let by_path = value.get("path").and_then(Value::as_str).map(|path| resolved(folder, path));
            let Some(used) = by_path.or_else(|| folders.get(&name).cloned()) else { continue };
            if !allowed.contains(&used.as_str()) {
                let line = line_of_key(&manifest.text, &name);
                findings.push(finding(
                    manifest,
                    line,
                    &format!("{folder} may not depend on {used} (DESIGN, section 1)"),
                ));
            }
        }
    }
    findings
}

/// The folder that a path in the manifest of `folder` means.
fn resolved(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn core_dependencies(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for (_, manifest) in members(files).filter(|(folder, _)| *folder == "replication") {
        let used = dependencies(&manifest.text, &["dependencies", "build-dependencies"]);
        let used_by_tests = dependencies(&manifest.text, &["dev-dependencies"]);
        let strangers = used.iter().filter(|(name, _)| !CORE_DEPENDENCIES.contains(&name.as_str()));
        let strange_to_tests = used_by_tests.iter().filter(|(name, _)| {
            !CORE_DEPENDENCIES.contains(&name.as_str()) && !CORE_DEV_DEPENDENCIES.contains(&name.as_str())
        });
        for (name, _) in strangers.chain(strange_to_tests) {
            let rule = format!("the core may not depend on {name}: see CORE_DEPENDENCIES in tidy.rs");
            findings.push(finding(manifest, line_of_key(&manifest.text, name), &rule));
        }
        for name in CORE_DEPENDENCIES.iter().filter(|name| used.iter().all(|(other, _)| other != *name)) {
            findings.push(finding(
                manifest,
                1,
                &format!("the core no longer depends on {name}: take it out of tidy.rs"),
            ));
        }
    }
    findings
}

/// Clippy reads the nearest clippy.toml only, so that one in a crate hides the root's.
fn lints(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    let root = files.iter().find(|file| file.path == "Cargo.toml").map(|file| parsed(&file.text));
    let root = root.and_then(|root| root.get("workspace")?.get("lints").cloned());
    for (_, manifest) in members(files) {
        let parsed = parsed(&manifest.text);
        let lints = parsed.get("lints");
        if parsed.contains_key("workspace") && lints != root.as_ref() {
            let rule = "a workspace of its own, whose lints are not those of the root: repeat them";
            findings.push(finding(manifest, 1, rule));
        } else if !parsed.contains_key("workspace")
            && lints.and_then(|lints| lints.get("workspace")) != Some(&Value::Boolean(true))
        {
            findings.push(finding(manifest, 1, "without [lints] workspace = true"));
        }
    }
    let root = files
        .iter()
        .find(|file| file.path == "clippy.toml")
        .map(|file| parsed(&file.text))
        .unwrap_or_default();
    for file in files.iter().filter(|file| file.path.ends_with("/clippy.toml")) {
        let own = parsed(&file.text);
        for (key, value) in root.iter().filter(|(key, value)| own.get(*key) != Some(value)) {
            let rule = format!("hides {key} = {value} of the root's clippy.toml: repeat it");
            findings.push(finding(file, line_of_key(&file.text, key), &rule));
        }
    }
    findings
}

fn one_file_uses_sled(files: &[File]) -> Vec<String> {
    let uses = files.iter().filter(|file| is_rust(file)).filter_map(|file| {
        let line = code(file).find(|(_, line)| mentions(line, "sled"))?.0;
        Some((file, line))
    });
    let uses: Vec<_> = uses.collect();
    let Some((first, _)) = uses.first() else { return Vec::new() };
    let rule = format!("uses sled, as {} does: only one file may (DESIGN, section 7)", first.path);
    uses[1..].iter().map(|(file, line)| finding(file, *line, &rule)).collect()
}

fn only_the_codec_uses_bincode(files: &[File]) -> Vec<String> {
    let is_codec =
        |path: &str| path == "replication/src/codec.rs" || path.starts_with("replication/src/codec/");
    let others = files.iter().filter(|file| is_rust(file) && !is_codec(&file.path));
    let uses = others.flat_map(|file| {
        code(file).filter(|(_, line)| mentions(line, "bincode")).map(move |(at, _)| (file, at))
    });
    uses.map(|(file, at)| {
        finding(file, at, "uses bincode: only replication/src/codec.rs may (DESIGN, section 4)")
    })
    .collect()
}

fn openings(files: &[File]) -> Vec<String> {
    let tells = |file: &File| {
        let paragraph = file.text.lines().map_while(|line| line.strip_prefix("//! "));
        paragraph.flat_map(str::split_whitespace).count() >= MIN_OPENING_WORDS
    };
    let silent = files.iter().filter(|file| is_rust(file) && !tells(file));
    silent
        .map(|file| finding(file, 1, "does not open with a //! paragraph that tells what the file is for"))
        .collect()
}

fn names(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    let empty = |name: &str| format!("\"{name}\" says nothing: name what is inside");
    for file in files.iter().filter(|file| is_rust(file)) {
        let parts: Vec<&str> = file.path.trim_end_matches(".rs").split('/').collect();
        if let [.., folder, "mod"] = parts[..] {
            findings.push(finding(file, 1, &format!("no mod.rs: write {folder}.rs beside {folder}/")));
        }
        for part in parts.iter().filter(|part| EMPTY_NAMES.contains(part)) {
            findings.push(finding(file, 1, &empty(part)));
        }
        for (at, line) in code(file) {
            let mut words = line.split([' ', ';', '{']).filter(|word| !word.is_empty());
            let name = words
                .find(|word| !word.starts_with("pub"))
                .filter(|word| *word == "mod")
                .and_then(|_| words.next());
            if let Some(name) = name.filter(|name| EMPTY_NAMES.contains(name)) {
                findings.push(finding(file, at, &empty(name)));
            }
        }
    }
    findings
}

fn lengths(files: &[File]) -> Vec<String> {
    let above_tests = |file: &File| file.text.lines().take_while(|line| *line != "#[cfg(test)]").count();
    let long = files.iter().filter(|file| is_rust(file) && above_tests(file) > MAX_LINES);
    let rule = format!("more than {MAX_LINES} lines above its tests: split it");
    long.map(|file| finding(file, MAX_LINES + 1, &rule)).collect()
}

/// The manifests of workspaces may declare the name to the compiler, and no more.
fn planted_bugs(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files {
        let is_allowed = PLANTING_FILES.contains(&file.path.as_str());
        for (at, line) in file.text.lines().enumerate() {
            let is_manifest = file.path.ends_with("Cargo.toml");
            let declares = is_allowed && (!is_manifest || line.contains("check-cfg"));
            let is_comment = line.trim_start().starts_with(['#', '/']) && !line.contains("#[");
            let plants = line.contains("planted_bugs") || line.contains("planted-rustc");
            if plants && !declares && !is_comment {
                findings.push(finding(file, at + 1, "only the simulator's own build may plant bugs"));
            }
        }
    }
    findings
}

fn finding(file: &File, line: usize, rule: &str) -> String {
    format!("{}:{line}: {rule}", file.path)
}

fn is_rust(file: &File) -> bool {
    file.path.ends_with(".rs")
}

/// The lines that are no comments, trimmed, and counted from 1. This file, whose texts are examples, has none.
fn code(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let text = if file.path == "tests/suites/tidy.rs" { "" } else { file.text.as_str() };
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    lines.filter(|(_, line)| !line.starts_with("//"))
}

/// Whether the line has a path into the crate, or imports it.
fn mentions(line: &str, name: &str) -> bool {
    let starts_word = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let in_a_path = line.match_indices(&format!("{name}::")).any(|(at, _)| starts_word(at));
    in_a_path || line.strip_prefix("use ").is_some_and(|path| path.trim_end_matches(';') == name)
}

/// The manifests of the member crates, by folder.
fn members(files: &[File]) -> impl Iterator<Item = (&str, &File)> {
    files.iter().filter_map(|file| Some((file.path.strip_suffix("/Cargo.toml")?, file)))
}

/// The folder of each of our crates, by the name that the workspace's manifest gives it.
fn our_folders(files: &[File]) -> BTreeMap<String, String> {
    let root = files
        .iter()
        .find(|file| file.path == "Cargo.toml")
        .map(|file| parsed(&file.text))
        .unwrap_or_default();
    let listed =
        root.get("workspace").and_then(|workspace| workspace.get("dependencies")).and_then(Value::as_table);
    let ours =
        listed.into_iter().flatten().filter_map(|(name, value)| Some((name, value.get("path")?.as_str()?)));
    ours.map(|(name, folder)| (name.clone(), folder.to_string())).collect()
}

/// The dependencies in these sections, those for some targets only included.
fn dependencies(manifest: &str, sections: &[&str]) -> Vec<(String, Value)> {
    let manifest = parsed(manifest);
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flatten();
    let tables = targets.filter_map(|(_, target)| target.as_table()).chain([&manifest]);
    let listed =
        tables.flat_map(|table| sections.iter().filter_map(|section| table.get(*section)?.as_table()));
    listed.flatten().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn parsed(toml: &str) -> Table {
    toml.parse().expect("cargo and clippy read it, so it is TOML")
}

/// The first line that sets `key`; 1 where it is not set.
fn line_of_key(toml: &str, key: &str) -> usize {
    let sets = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '=', '.']));
    toml.lines().position(sets).map_or(1, |at| at + 1)
}

/// Every Rust source and every manifest below `folder`, in order; not what is built or hidden.
fn read_files(root: &Path, folder: &str, files: &mut Vec<File>) {
    let entries = fs::read_dir(root.join(folder)).expect("the repository can be read");
    let names: BTreeSet<String> = entries
        .filter_map(|entry| entry.expect("the repository can be read").file_name().into_string().ok())
        .collect();
    for name in names.iter().filter(|name| !name.starts_with('.') && *name != "target") {
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let full = root.join(&path);
        if full.is_dir() {
            read_files(root, &path, files);
        } else if path.ends_with(".rs") || name == "Cargo.toml" || name == "clippy.toml" {
            files.push(File { text: fs::read_to_string(full).expect("sources are UTF-8"), path });
        }
    }
}
