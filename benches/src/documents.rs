//! What one more edit costs a document that has had many: its time at each PoP beside that of a plain value, and its
//! bytes on the wire.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use littoral::{Doc, PutOptions};
use serde_json::json;

use crate::cluster::Cluster;
use crate::load;
use crate::report::{Tables, whole};
use crate::wire;

/// The pause between two timed edits: each goes out by itself.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Edits that the document has had before
    #[arg(long, default_value_t = 10_000)]
    edits: u64,
    /// Timed edits at each PoP, and as many values
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    timed: u64,
    /// How many PoPs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..=8))]
    pops: u64,
}

pub(crate) async fn run(options: &Options, folder: &Path, tables: &mut Tables) -> anyhow::Result<()> {
    let pops = usize::try_from(options.pops)?;
    let cluster = Cluster::start(folder, pops).await?;
    let doc = cluster.namespace(0, "documents").await?.doc("board");
    doc.put(&json!({"title": "A board", "moves": 0, "cards": []})).await?;
    let started = Instant::now();
    for number in 0..options.edits {
        edit(&doc, number).await?;
    }
    let built = started.elapsed();
    cluster.wait_equal().await?;
    let idle_per_s = wire::idle(&cluster).await?;
    let mut rows = Vec::new();
    for pop in 0..pops {
        let namespace = cluster.namespace(pop, "documents").await?;
        let doc = namespace.doc("board");
        let started = Instant::now();
        edit(&doc, options.edits).await?;
        let first_us = started.elapsed().as_micros() as f64;
        let [mut edited, mut put] = [(); 2].map(|()| load::latencies());
        let before = wire::settled(&cluster, pop).await?;
        let watched = Instant::now();
        for number in 0..options.timed {
            tokio::time::sleep(PAUSE).await;
            let started = Instant::now();
            edit(&doc, number).await?;
            edited.saturating_record(started.elapsed().as_nanos() as u64);
        }
        let after = wire::settled(&cluster, pop).await?;
        let idle = idle_per_s * watched.elapsed().as_secs_f64();
        for number in 0..options.timed {
            tokio::time::sleep(PAUSE).await;
            let started = Instant::now();
            namespace.put(&format!("card-{number}"), "a card", PutOptions::default()).await?;
            put.saturating_record(started.elapsed().as_nanos() as u64);
        }
        let us = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let peers = (pops - 1) as f64;
        let sent = wire::since(before, after).sent as f64 - idle / 2.0;
        rows.push([
            format!("pop{}", pop + 1),
            whole(first_us),
            whole(us(&edited, 0.5)),
            whole(us(&edited, 0.99)),
            whole(us(&put, 0.5)),
            format!("{:.2}", us(&edited, 0.5) / us(&put, 0.5)),
            whole(sent / options.timed as f64 / peers),
        ]);
        cluster.wait_equal().await?;
    }
    let edits = options.edits;
    let title = format!(
        "A document with {edits} edits at {pops} PoPs: one more, durable, in microseconds from request to answer, warm; \
         beside it a value. The bytes are of UDP payload, for one peer, less what idle links send in that time. \
         The {edits} edits took {:.1} ms each",
        built.as_secs_f64() * 1e3 / edits.max(1) as f64
    );
    let columns = ["at", "first edit", "edit p50", "edit p99", "put p50", "edit / put", "bytes sent an edit"];
    tables.print(&title, columns, &rows);
    Ok(())
}

/// Of four edits one puts a card into the list, the others count a move.
async fn edit(doc: &Doc, number: u64) -> anyhow::Result<()> {
    let patch = match number % 4 {
        0 => json!([{"op": "add", "path": "/cards/-", "value": format!("card {number}")}]),
        _ => json!([{"op": "replace", "path": "/moves", "value": number}]),
    };
    doc.patch(&patch).await?;
    Ok(())
}
