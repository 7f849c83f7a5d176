//! The store under test: a real `littoral` process on a disk that loses power, written to over HTTP by
//! concurrent clients. What a cut leaves is served by a fresh process, and every acknowledged write must
//! be there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::disk::Cut;
use super::{CutImage, PoweredDisk};
use crate::cluster::{Cluster, Load, Options, verify};
use crate::ledger::{Acked, Ledger, Mix};
use crate::random::Random;

/// The disk of one run.
const DISK_BYTES: usize = 512 << 20;
/// Inline values of every order of size, up to the inline limit, and some that go to chunk files.
const MIX: Mix =
    Mix { sizes: &[(60, 100), (20, 10 << 10), (15, 16 << 10), (5, 1 << 20)], delete_percent: 10 };
const WRITERS: usize = 16;
const KEYS_PER_WRITER: u64 = 12;
/// A cut comes this long after the start or the cut before, and up to twice that.
const CUT_AFTER: Duration = Duration::from_millis(700);

/// What one cut left of the store.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Writes acknowledged before the cut, superseded ones included.
    pub acked: u64,
    /// Acknowledged writes that are gone, values nobody wrote and reads that fail, or one line that says why
    /// the node does not start. 0 is what must be.
    pub wrong: usize,
    /// The first of them.
    pub example: Option<String>,
    /// What became of the unflushed sectors.
    pub cut: Cut,
}

/// Runs the store on a fresh disk and cuts the power `cuts` times.
pub fn run(seed: u64, cuts: u64) -> anyhow::Result<Vec<Outcome>> {
    // A runtime of its own: its threads must be in this thread's view of the mounts.
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(async {
        let disk = PoweredDisk::new(DISK_BYTES)?;
        let first_data_dir = Some(disk.folder().join("data"));
        let mut cluster = Cluster::started(Options { first_data_dir, ..Options::default() }).await?;
        let namespace = cluster.rest(0, "").create_namespace("power").await?;
        let ledger = Arc::new(Ledger::new(seed, MIX));
        let images = write_and_cut(&disk, &cluster, &namespace, &ledger, seed, cuts).await;
        cluster.kill9(0)?;
        let mut outcomes = Vec::new();
        for (acked, image) in images? {
            outcomes.push(revive(&mut cluster, &namespace, &ledger, acked, image).await?);
        }
        Ok(outcomes)
    })
}

async fn write_and_cut(
    disk: &PoweredDisk,
    cluster: &Cluster,
    namespace: &str,
    ledger: &Arc<Ledger>,
    seed: u64,
    cuts: u64,
) -> anyhow::Result<Vec<(Acked, CutImage)>> {
    let mut random = Random::new(seed);
    let load = Load::start(&cluster.rest(0, namespace), ledger, WRITERS, KEYS_PER_WRITER);
    let mut images = Vec::new();
    for _ in 0..cuts {
        tokio::time::sleep(CUT_AFTER + Duration::from_micros(random.below(CUT_AFTER.as_micros() as u64)))
            .await;
        // First what was acknowledged, then the cut: everything counted was acknowledged before it.
        let acked = ledger.acked();
        images.push((acked, tokio::task::block_in_place(|| disk.cut(random.next_u64()))?));
    }
    for stopped in load.stop().await {
        anyhow::ensure!(matches!(stopped, crate::cluster::Stopped::Asked), "a writer gave up: {stopped:?}");
    }
    Ok(images)
}

async fn revive(
    cluster: &mut Cluster,
    namespace: &str,
    ledger: &Arc<Ledger>,
    acked: Acked,
    image: CutImage,
) -> anyhow::Result<Outcome> {
    let cut = image.cut;
    let disk = image.mount().context("mounting what a cut left")?;
    cluster.move_data(0, disk.folder().join("data"))?;
    cluster.start(0)?;
    let wrong = match cluster.wait_ready(0).await {
        Ok(()) => verify(&cluster.rest(0, namespace), ledger, &acked).await.wrong,
        Err(error) => vec![format!("{error:#}")],
    };
    cluster.kill9(0)?;
    let acked = acked.values().sum();
    Ok(Outcome { acked, wrong: wrong.len(), example: wrong.into_iter().next(), cut })
}
