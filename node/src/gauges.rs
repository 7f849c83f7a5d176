//! The engine's figures as metrics: the same struct that REST and the command line show.

use std::sync::Arc;
use std::time::Duration;

use littoral::api::{Lag, Membership, State, Status};
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use metrics_exporter_prometheus::PrometheusHandle;
use replication::budget::{MAX_RATE, Rate};

use crate::chunks::{ChunkFigures, ChunkStore};
use crate::engine::Engine;
use crate::http::{LinkControl, links_of};
use crate::peering::Peering;
use crate::transport::SharedBudget;

/// How often the figures are brought up to date. Prometheus scrapes less often than this.
const EVERY: Duration = Duration::from_secs(1);

/// Brings the figures up to date until the node stops.
pub(crate) async fn run(
    engine: Engine,
    peering: Arc<Peering>,
    chunks: Arc<ChunkStore>,
    metrics: Option<PrometheusHandle>,
) {
    describe();
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        // Without a scrape the samples of histograms would pile up.
        metrics.iter().for_each(PrometheusHandle::run_upkeep);
        match engine.status().await {
            Ok(status) => {
                export(&status, &peering);
                export_chunks(&chunks.figures());
            }
            Err(_) => return,
        }
    }
}

fn describe() {
    describe_gauge!("littoral_ready", "1 while this node serves, else 0");
    describe_gauge!("littoral_entries", "Rows in the store: values and tombstones");
    describe_gauge!("littoral_lag_ops", "Events of the origin that the peer has not acknowledged as durable");
    describe_gauge!("littoral_lag_bytes", Unit::Bytes, "Bytes of keys and values in those events");
    describe_gauge!("littoral_lag_seconds", Unit::Seconds, "Time since the oldest of those events");
    describe_gauge!(
        "littoral_lag_gone_in_seconds",
        Unit::Seconds,
        "Time until those events are all there, at the pace of the last ten seconds; infinite if never"
    );
    describe_gauge!("littoral_clock_offset_seconds", Unit::Seconds, "The peer's clock less ours");
    describe_counter!("littoral_events_applied_total", "Events of other replicas applied");
    describe_counter!("littoral_events_sent_total", "Events sent, repeats included");
    describe_counter!("littoral_gaps_total", "Deltas that did not join what was held");
    describe_counter!("littoral_rewinds_total", "Streams sent again for want of an acknowledgement");
    describe_counter!("littoral_held_back_total", "Deltas put off because they come from the future");
    describe_counter!("littoral_anti_entropy_rounds_total", "Anti-entropy rounds begun");
    describe_counter!(
        "littoral_repaired_total",
        "Entries repaired here by anti-entropy: each is a fault found"
    );
    describe_gauge!(
        "littoral_epoch_seconds",
        Unit::Seconds,
        "All that was over before this Unix time is dropped"
    );
    describe_gauge!(
        "littoral_frontier_lag_seconds",
        Unit::Seconds,
        "How long ago the time is up to which every member holds everything"
    );
    describe_gauge!("littoral_tombstones", "Tombstones in the store");
    describe_gauge!("littoral_log_rows", "Events in the log");
    describe_gauge!("littoral_log_bytes", Unit::Bytes, "Bytes of the log's rows");
    describe_gauge!("littoral_clock_skew_seconds", Unit::Seconds, "This clock less the median of all seen");
    describe_gauge!("littoral_members", "Replicas that are, or were, members, by state");
    describe_gauge!("littoral_dead_letters", "Writes of earlier incarnations that wait for an operator");
    describe_gauge!(
        "littoral_chunks",
        "Chunk files of large values, by state: kept, or waiting to be collected"
    );
    describe_gauge!("littoral_chunk_bytes", Unit::Bytes, "Bytes of those files");
    describe_counter!("littoral_chunks_collected_total", "Chunk files deleted because no value named them");
    describe_counter!("littoral_chunks_collected_bytes_total", Unit::Bytes, "Bytes of those files");
    describe_gauge!("littoral_chunks_missing", "Chunks that values name and that are not here yet");
    describe_gauge!("littoral_chunks_missing_bytes", Unit::Bytes, "Bytes of those chunks");
    describe_counter!("littoral_dropped_total", "Entries dropped because they were over");
    describe_counter!(
        "littoral_written_anew_total",
        "Writes of an earlier incarnation that were written anew"
    );
    describe_counter!(
        "littoral_superseded_total",
        "Writes of an earlier incarnation that newer ones had overtaken"
    );
    describe_counter!(
        "littoral_conflicts_total",
        "Values that lost here to another write whose writer had not seen them"
    );
    describe_counter!(
        "littoral_conflicts_dropped_total",
        "Of those, how many were not kept to their time for want of room"
    );
    describe_gauge!(
        "littoral_veiled_entries",
        "Entries that readers see as they were, until all of a batch is here"
    );
    describe_counter!(
        "littoral_batches_torn_total",
        "Entries that readers may have seen with a part of a batch only"
    );
    describe_counter!(
        "littoral_document_changes_folded_total",
        "Changes of documents that were folded together"
    );
    describe_gauge!("littoral_conflict_rows", "Values in the ledger of conflicts");
    describe_gauge!("littoral_conflict_bytes", Unit::Bytes, "Bytes of those, with their chunks");
    describe_counter!("littoral_writes_refused_total", "Writes of clients that were not taken, by reason");
    describe_counter!(
        "littoral_wire_sent_bytes_total",
        Unit::Bytes,
        "Bytes sent on the wire since the node started, headers of IP and UDP included, by links"
    );
    describe_gauge!(
        "littoral_budget_bytes_per_second",
        "What links may send together at this time; 107374182400 is no limit"
    );
    describe_gauge!(
        "littoral_month_sent_bytes",
        Unit::Bytes,
        "Bytes sent on the wire this calendar month (UTC), restarts included, by links"
    );
    describe_gauge!("littoral_month_cap_bytes", Unit::Bytes, "How many that may be, where there is a cap");
    describe_gauge!("littoral_link_wire_sent_bytes", Unit::Bytes, "UDP payload sent over the present link");
    describe_gauge!(
        "littoral_link_wire_received_bytes",
        Unit::Bytes,
        "UDP payload received over the present link"
    );
}

fn export(status: &Status, peering: &Peering) {
    gauge!("littoral_ready").set(f64::from(u8::from(status.state == State::Ready)));
    gauge!("littoral_entries").set(status.entries as f64);
    status.lag.iter().for_each(export_lag);
    for peer in &status.peers {
        if let Some(offset_ms) = peer.clock_offset_ms {
            gauge!("littoral_clock_offset_seconds", "peer" => peer.pop.clone())
                .set(offset_ms as f64 / 1000.0);
        }
        let replica = peer.replica.as_deref().and_then(|replica| replica.parse().ok());
        let stats = replica.and_then(|replica| peering.link_stats(replica));
        if let Some(stats) = stats {
            gauge!("littoral_link_wire_sent_bytes", "peer" => peer.pop.clone()).set(stats.sent_bytes as f64);
            gauge!("littoral_link_wire_received_bytes", "peer" => peer.pop.clone())
                .set(stats.received_bytes as f64);
        }
    }
    peering.shared_budgets().iter().for_each(export_budget);
    let counters = &status.counters;
    counter!("littoral_events_applied_total").absolute(counters.events_applied);
    counter!("littoral_events_sent_total").absolute(counters.events_sent);
    counter!("littoral_gaps_total").absolute(counters.gaps);
    counter!("littoral_rewinds_total").absolute(counters.rewinds);
    counter!("littoral_held_back_total").absolute(counters.held_back);
    counter!("littoral_anti_entropy_rounds_total").absolute(counters.rounds);
    counter!("littoral_repaired_total").absolute(counters.repaired);
    counter!("littoral_dropped_total").absolute(counters.dropped);
    counter!("littoral_written_anew_total").absolute(counters.written_anew);
    counter!("littoral_superseded_total").absolute(counters.superseded);
    counter!("littoral_conflicts_total").absolute(counters.conflicts);
    counter!("littoral_conflicts_dropped_total").absolute(counters.conflicts_dropped);
    gauge!("littoral_veiled_entries").set(counters.veiled as f64);
    counter!("littoral_batches_torn_total").absolute(counters.batches_torn);
    counter!("littoral_document_changes_folded_total").absolute(counters.folded);
    gauge!("littoral_conflict_rows").set(counters.conflict_rows as f64);
    gauge!("littoral_conflict_bytes").set(counters.conflict_bytes as f64);
    export_membership(&status.membership);
}

fn export_chunks(figures: &ChunkFigures) {
    // A chunk that waits is a file that is here.
    let kept = figures.files.saturating_sub(figures.waiting);
    let kept_bytes = figures.bytes.saturating_sub(figures.waiting_bytes);
    for (state, files, bytes) in
        [("kept", kept, kept_bytes), ("waiting", figures.waiting, figures.waiting_bytes)]
    {
        gauge!("littoral_chunks", "state" => state).set(files as f64);
        gauge!("littoral_chunk_bytes", "state" => state).set(bytes as f64);
    }
    counter!("littoral_chunks_collected_total").absolute(figures.collected);
    counter!("littoral_chunks_collected_bytes_total").absolute(figures.collected_bytes);
    gauge!("littoral_chunks_missing").set(figures.missing as f64);
    gauge!("littoral_chunks_missing_bytes").set(figures.missing_bytes as f64);
}

fn export_budget(shared: &SharedBudget) {
    let links = links_of(shared.class).name();
    counter!("littoral_wire_sent_bytes_total", "links" => links).absolute(shared.sent.bytes);
    // A gauge cannot be taken back: the greatest rate stands for none.
    let budget = shared.in_force.rate.map_or(MAX_RATE, Rate::bytes_per_s);
    gauge!("littoral_budget_bytes_per_second", "links" => links).set(budget as f64);
    gauge!("littoral_month_sent_bytes", "links" => links).set(shared.month.sent_bytes as f64);
    if let Some(cap_bytes) = shared.month.cap_bytes {
        gauge!("littoral_month_cap_bytes", "links" => links).set(cap_bytes as f64);
    }
}

/// How far a peer is behind an origin, and for how long yet.
fn export_lag(lag: &Lag) {
    let labels = [("origin", lag.origin.clone()), ("peer", lag.peer.clone())];
    gauge!("littoral_lag_ops", &labels).set(lag.ops as f64);
    gauge!("littoral_lag_bytes", &labels).set(lag.bytes as f64);
    gauge!("littoral_lag_seconds", &labels).set(lag.time_ms as f64 / 1000.0);
    let gone_in_s = lag.gone_in_ms.map_or(f64::INFINITY, |ms| ms as f64 / 1000.0);
    gauge!("littoral_lag_gone_in_seconds", &labels).set(gone_in_s);
}

fn export_membership(membership: &Membership) {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let garbage = &membership.garbage;
    gauge!("littoral_epoch_seconds").set(seconds(garbage.epoch_ms));
    gauge!("littoral_frontier_lag_seconds").set(seconds(membership.frontier_lag_ms));
    gauge!("littoral_tombstones").set(garbage.tombstones as f64);
    gauge!("littoral_log_rows").set(garbage.log_rows as f64);
    gauge!("littoral_log_bytes").set(garbage.log_bytes as f64);
    gauge!("littoral_dead_letters").set(membership.dead_letters as f64);
    if let Some(skew_ms) = membership.clock_skew_ms {
        gauge!("littoral_clock_skew_seconds").set(skew_ms as f64 / 1000.0);
    }
    let in_service = membership.members.saturating_sub(membership.draining);
    for (state, count) in
        [("member", in_service), ("draining", membership.draining), ("removed", membership.removed)]
    {
        gauge!("littoral_members", "state" => state).set(count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{InForce, MonthView, Sent, Why};
    use littoral::api::members::Garbage;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use replication::budget::LinkClass;

    #[test]
    fn chunks_are_exported_by_what_becomes_of_them() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let figures = ChunkFigures {
            files: 10,
            bytes: 1_000,
            waiting: 3,
            waiting_bytes: 30,
            collected: 4,
            collected_bytes: 40,
            missing: 5,
            missing_bytes: 50,
        };
        metrics::with_local_recorder(&recorder, || export_chunks(&figures));
        let text = recorder.handle().render();
        for line in [
            "littoral_chunks{state=\"kept\"} 7",
            "littoral_chunk_bytes{state=\"kept\"} 970",
            "littoral_chunks{state=\"waiting\"} 3",
            "littoral_chunks_collected_total 4",
            "littoral_chunks_collected_bytes_total 40",
            "littoral_chunks_missing 5",
            "littoral_chunks_missing_bytes 50",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn what_waits_and_who_is_a_member_is_exported_in_base_units() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let garbage = Garbage { epoch_ms: 1_500, log_bytes: 7, tombstones: 3, ..Garbage::default() };
        let membership = Membership {
            members: 4,
            draining: 1,
            removed: 2,
            garbage,
            frontier_lag_ms: 2_500,
            clock_skew_ms: Some(-40),
            dead_letters: 5,
            ..Membership::default()
        };
        metrics::with_local_recorder(&recorder, || export_membership(&membership));
        let text = recorder.handle().render();
        for line in [
            "littoral_epoch_seconds 1.5",
            "littoral_frontier_lag_seconds 2.5",
            "littoral_tombstones 3",
            "littoral_log_bytes 7",
            "littoral_clock_skew_seconds -0.04",
            "littoral_members{state=\"member\"} 3",
            "littoral_members{state=\"draining\"} 1",
            "littoral_members{state=\"removed\"} 2",
            "littoral_dead_letters 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }
    #[test]
    fn budgets_months_and_forecasts_are_exported_by_links_and_pairs() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let month =
            MonthView { name: "2026-11".into(), sent_bytes: 5, cap_bytes: Some(9), used_up_at_s: None };
        let metered = SharedBudget {
            class: Some(LinkClass::Metered),
            base: None,
            in_force: InForce { rate: Rate::new(16_384), why: Why::MonthlyCap },
            sent: Sent { bytes: 4, bytes_per_s: 1 },
            month: month.clone(),
        };
        let in_force = InForce { rate: None, why: Why::Base };
        let node = SharedBudget {
            class: None,
            in_force,
            month: MonthView { cap_bytes: None, ..month },
            ..metered.clone()
        };
        let lag = Lag { origin: "a".into(), peer: "b".into(), bytes: 3, ..Lag::default() };
        metrics::with_local_recorder(&recorder, || {
            [metered, node].iter().for_each(export_budget);
            export_lag(&Lag { gone_in_ms: Some(1_500), ..lag.clone() });
            export_lag(&Lag { peer: "c".into(), ..lag });
        });
        let text = recorder.handle().render();
        for line in [
            "littoral_wire_sent_bytes_total{links=\"metered\"} 4",
            "littoral_budget_bytes_per_second{links=\"metered\"} 16384",
            "littoral_budget_bytes_per_second{links=\"node\"} 107374182400",
            "littoral_month_sent_bytes{links=\"metered\"} 5",
            "littoral_month_cap_bytes{links=\"metered\"} 9",
            "littoral_lag_gone_in_seconds{origin=\"a\",peer=\"b\"} 1.5",
            "littoral_lag_gone_in_seconds{origin=\"a\",peer=\"c\"} inf",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        assert!(!text.contains("littoral_month_cap_bytes{links=\"node\"}"), "it has no cap: {text}");
    }
}
