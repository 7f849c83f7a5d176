//! `status`: one PoP, and its peers as it sees them.

use std::time::Duration;

use littoral::api::members::Stage;
use littoral::api::{Peer, State, Status};

use super::connection::Connection;
use super::failure::Failure;
use super::{print, short_id};

pub(super) async fn run(connection: Connection, json: bool) -> Result<(), Failure> {
    let status = connection.client()?.status().await?;
    if json { print::json(&status) } else { print::line(page(&status)) }
}

/// How a state reads.
pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Ready => "ready",
        State::ReadOnly => "read-only",
        State::Bootstrapping => "bootstrapping",
        State::Quarantined => "quarantined",
    }
}

fn page(status: &Status) -> String {
    let reason = status.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let own_state = format!("{} in {}: {}{reason}", status.pop, status.region, state(status.state));
    let replica = short_id(&status.replica);
    let own = [status.pop.clone(), "this".into(), status.root.clone(), String::new(), String::new()];
    let rows = std::iter::once(own).chain(status.peers.iter().map(peer));
    let replica = if replica.is_empty() { "unknown" } else { &replica };
    format!(
        "{}\n{} entries, replica {replica}, version {}\n{}\n\n{}\n\n{}",
        print::wrapped(&own_state),
        print::count(status.entries),
        status.version,
        membership(status),
        print::table(["POP", "LINK", "ROOT", "CLOCK", "ROUND TRIP"], rows),
        verdict(status),
    )
}

fn membership(status: &Status) -> String {
    if status.replica.is_empty() {
        return "its store is not open, so its place in the cluster is not known".into();
    }
    let known = &status.membership;
    let stage = match known.stage {
        Stage::Fresh => "not a member yet",
        Stage::Copying => "copying",
        Stage::CatchingUp => "catching up",
        Stage::Member => "a member",
        Stage::Removed => "removed",
    };
    let letters = match known.dead_letters {
        0 => String::new(),
        count => format!("; {} dead letters", print::count(count)),
    };
    match known.garbage.epoch_ms {
        0 => format!("{stage}; no epoch yet{letters}"),
        ms => format!("{stage}; epoch {}{letters}", print::moment(ms)),
    }
}

fn peer(peer: &Peer) -> [String; 5] {
    [
        peer.pop.clone(),
        if peer.connected { "up" } else { "down" }.into(),
        peer.root.clone().unwrap_or_default(),
        peer.clock_offset_ms.map(|ms| format!("{ms:+} ms")).unwrap_or_default(),
        peer.rtt_us.map(round_trip).unwrap_or_default(),
    ]
}

fn round_trip(us: u64) -> String {
    let duration = Duration::from_micros(us);
    if us < 10_000 { format!("{:.1} ms", duration.as_secs_f64() * 1e3) } else { print::time(duration) }
}

/// The root of a PoP that is away is old news, and a store that could not be opened has none.
fn verdict(status: &Status) -> String {
    if status.root.is_empty() {
        return "roots: none here, as the store is not open".into();
    }
    if status.peers.is_empty() {
        return "roots: nothing to compare with, as this PoP knows no other".into();
    }
    let linked = || status.peers.iter().filter(|peer| peer.connected);
    let (all, here) = (status.peers.len() + 1, linked().count() + 1);
    let equal = 1 + linked().filter(|peer| peer.root.as_ref() == Some(&status.root)).count();
    let away = if here < all { format!("; no link to {}", all - here) } else { String::new() };
    if equal == all {
        return format!("roots: equal on all {all}");
    }
    let why = if equal < here { " (they differ while writes are on their way)" } else { "" };
    format!("roots: equal on {equal} of {all}{why}{away}")
}

#[cfg(test)]
mod tests {
    use super::super::fake_pop;
    use super::*;

    #[test]
    fn the_page_fits_80_columns_and_says_whether_roots_agree() {
        let root = "0123456789abcdef0123456789abcdef".to_owned();
        let peer = |pop: &str, root: Option<&String>| Peer {
            pop: pop.into(),
            replica: None,
            connected: root.is_some(),
            root: root.cloned(),
            clock_offset_ms: Some(-1),
            rtt_us: Some(321),
            ..Peer::default()
        };
        let mut status = Status {
            region: "eu-west".into(),
            replica: root.clone(),
            version: "0.1.0".into(),
            root: root.clone(),
            entries: 60_123,
            peers: vec![peer("fra", Some(&root))],
            ..fake_pop::status("ams")
        };
        assert!(page(&status).ends_with("roots: equal on all 2"), "{}", page(&status));
        status.peers.push(peer("sin", None));
        let text = page(&status);
        assert!(text.ends_with("roots: equal on 2 of 3; no link to 1"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("60,123 entries"), "{text}");
        // It was equal when it was last heard, which says nothing of now.
        status.peers[1].root = Some(root);
        assert!(page(&status).ends_with("roots: equal on 2 of 3; no link to 1"), "{}", page(&status));
        status.peers[1] = peer("sin", Some(&"ff".repeat(16)));
        assert!(page(&status).contains("roots: equal on 2 of 3 (they differ"), "{}", page(&status));
        status.peers.clear();
        assert!(page(&status).contains("roots: nothing to compare with"), "{}", page(&status));
        status.reason = Some("a reason of many words, ".repeat(9));
        assert!(page(&status).lines().all(|line| line.chars().count() <= 80), "{}", page(&status));
        status.root.clear();
        assert!(page(&status).contains("roots: none here"), "{}", page(&status));
    }
}
