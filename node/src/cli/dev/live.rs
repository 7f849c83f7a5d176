//! What `dev` shows: where the PoPs are, what to try, then a live line of each PoP's lag.

use std::path::{Path, PathBuf};
use std::time::Duration;

use littoral::api::{State, Status};
use serde_json::json;

use super::Failure;
use super::cluster::{Cluster, NAMESPACE};
use crate::cli::print::{self, Redrawn};
use crate::cli::status;

/// How often the PoPs are asked.
const INTERVAL: Duration = Duration::from_millis(500);
/// How much of a root tells roots apart.
const SHORT_ROOT_CHARS: usize = 8;

pub(super) async fn run(cluster: &mut Cluster, json: bool) -> Result<(), Failure> {
    cluster.start().await?;
    let namespace = cluster.namespace().await?;
    if json {
        print::json(&description(cluster, namespace.id()))?;
    } else {
        print::line(introduction(cluster, namespace.id()))?;
    }
    let mut screen = Redrawn::on_stdout();
    loop {
        let statuses = cluster.statuses().await;
        if !cluster.pops.iter_mut().any(|pop| pop.is_running()) {
            return Err(Failure::new("no PoP is running any more").hint("with --dir DIR their logs are kept"));
        }
        let lines = cluster.pops.iter_mut().zip(&statuses).map(|(pop, own)| {
            let lag = Behind::of(&pop.name, &statuses);
            let own = own.as_ref().ok_or(if pop.is_running() { "no answer" } else { "down" });
            if json { lag_json(&pop.name, own, lag).to_string() } else { lag_line(&pop.name, own, lag) }
        });
        screen.show(lines.collect())?;
        tokio::time::sleep(INTERVAL).await;
    }
}

fn description(cluster: &Cluster, namespace: &str) -> serde_json::Value {
    let pops = cluster.pops.iter().map(
        |pop| json!({ "pop": pop.name, "url": pop.client.base_url(), "pid": pop.pid(), "log": pop.log() }),
    );
    json!({
        "pops": pops.collect::<Vec<_>>(),
        "account": cluster.account.as_ref(),
        "token": cluster.token.reveal(),
        "namespace": { "id": namespace, "title": NAMESPACE },
        "dir": cluster.folder,
    })
}

fn introduction(cluster: &Cluster, namespace: &str) -> String {
    let pops = &cluster.pops;
    let (first, middle, last) = (&pops[0], &pops[pops.len() / 2], &pops[pops.len() - 1]);
    let rows = pops.iter().map(|pop| {
        let pid = pop.pid().map(|pid| pid.to_string()).unwrap_or_default();
        [pop.name.clone(), pop.client.base_url().to_owned(), pid]
    });
    let program = program();
    format!(
        "{table}\n\n\
         account    {account}\n\
         token      {token}\n\
         namespace  {NAMESPACE} ({namespace})\n\
         folder     {folder}\n\n\
         Try, in another terminal:\n\n\
         export LITTORAL_URL={url} LITTORAL_NAMESPACE={NAMESPACE}\n\
         export LITTORAL_ACCOUNT={account}\n\
         export LITTORAL_TOKEN={quoted_token}\n\n\
         {program} kv put greeting 'hello from {pop}'\n\n\
         {program} kv get greeting --url {last_url}\n\n\
         curl -H \"Authorization: Bearer $LITTORAL_TOKEN\" \\\n\
         {middle_url}/client/v4/accounts/$LITTORAL_ACCOUNT\\\n\
         /storage/kv/namespaces/{namespace}/values/greeting\n\n\
         Ctrl-C stops all. How far each PoP is behind the others:\n",
        table = print::table(["POP", "URL", "PID"], rows),
        account = cluster.account,
        token = cluster.token.reveal(),
        quoted_token = quoted(cluster.token.reveal()),
        folder = cluster.folder.display(),
        url = first.client.base_url(),
        pop = first.name,
        last_url = last.client.base_url(),
        middle_url = middle.client.base_url(),
    )
}

/// How this program is called from a shell in the same folder.
fn program() -> String {
    let Ok(own) = std::env::current_exe() else { return "littoral".into() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join("littoral")).find(|path| path.is_file());
    let is_own = |path: &PathBuf| path.canonicalize().ok() == own.canonicalize().ok();
    if found.as_ref().is_some_and(is_own) {
        return "littoral".into();
    }
    let here = std::env::current_dir().unwrap_or_default();
    // With "./" in front, since a shell does not look for a bare name in its own folder.
    let relative = own.strip_prefix(here).map(|path| Path::new(".").join(path));
    quoted(&relative.unwrap_or(own).to_string_lossy())
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    if text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// How far a PoP is behind all others together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Behind {
    ops: u64,
    bytes: u64,
    time_ms: u64,
}

impl Behind {
    /// Asks the origins: they have the PoP's acknowledgements, also when it is down.
    fn of(pop: &str, statuses: &[Option<Status>]) -> Self {
        let rows = statuses.iter().flatten().flat_map(|status| {
            status.lag.iter().filter(move |lag| lag.origin == status.pop && lag.peer == pop)
        });
        rows.fold(Self::default(), |sum, lag| Self {
            ops: sum.ops + lag.ops,
            bytes: sum.bytes + lag.bytes,
            time_ms: sum.time_ms.max(lag.time_ms),
        })
    }
}

/// `own` is what the PoP says of itself, or why it says nothing.
fn lag_line(name: &str, own: Result<&Status, &str>, lag: Behind) -> String {
    let own = match own {
        Err(why) => why.to_owned(),
        Ok(status) if status.state != State::Ready => status::state(status.state).to_owned(),
        Ok(status) => {
            let root: String = status.root.chars().take(SHORT_ROOT_CHARS).collect();
            format!("{} entries, root {root}", print::count(status.entries))
        }
    };
    let lag = if lag.ops == 0 {
        "in step".to_owned()
    } else {
        let time = print::time(Duration::from_millis(lag.time_ms));
        let ops = if lag.ops == 1 { "op" } else { "ops" };
        format!("{} {ops}, {}, {time} behind", print::count(lag.ops), print::size(lag.bytes))
    };
    format!("{name:<5}  {lag:<36}  {own}")
}

fn lag_json(name: &str, own: Result<&Status, &str>, lag: Behind) -> serde_json::Value {
    json!({
        "pop": name, "ops": lag.ops, "bytes": lag.bytes, "time_ms": lag.time_ms,
        "state": own.map_or_else(|why| json!(why), |status| json!(status.state)),
        "entries": own.ok().map(|status| status.entries),
        "root": own.ok().map(|status| &status.root),
    })
}

#[cfg(test)]
mod tests {
    use littoral::api::Lag;

    use super::*;
    use crate::cli::fake_pop;

    fn status(pop: &str, lag: &[(&str, &str, u64)]) -> Option<Status> {
        let lag = lag.iter().map(|(origin, peer, ops)| Lag {
            origin: (*origin).into(),
            peer: (*peer).into(),
            ops: *ops,
            bytes: ops * 1_000,
            time_ms: ops * 1_000,
            ..Lag::default()
        });
        Some(Status {
            root: "0123456789abcdef".into(),
            entries: 1_000_000,
            lag: lag.collect(),
            ..fake_pop::status(pop)
        })
    }

    #[test]
    fn a_line_tells_what_the_origins_know_and_fits_80_columns() {
        let statuses = [
            status("pop1", &[("pop1", "pop2", 5), ("pop1", "pop3", 1_234_567), ("pop2", "pop3", 999)]),
            status("pop2", &[("pop2", "pop3", 1), ("pop1", "pop3", 7)]),
            None,
        ];
        for (index, name, expected) in [
            (0, "pop1", "pop1   in step                               1,000,000 entries, root 01234567"),
            (1, "pop2", "pop2   5 ops, 4.88 KiB, 5.0 s behind         1,000,000 entries, root 01234567"),
            (2, "pop3", "pop3   1,234,568 ops, 1.15 GiB, 342 h behind  down"),
        ] {
            let line = lag_line(name, statuses[index].as_ref().ok_or("down"), Behind::of(name, &statuses));
            assert_eq!(line, expected);
            assert!(line.len() <= 80, "{line}");
        }
    }

    #[test]
    fn a_word_survives_the_shell() {
        let path = "target/release/littoral";
        for (word, shell) in [(path, path), ("it's $HOME", r"'it'\''s $HOME'")] {
            assert_eq!(quoted(word), shell);
        }
    }
}
