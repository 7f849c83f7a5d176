//! The store under test: a real `littoral` process on a disk that loses power, written to over HTTP by
//! concurrent clients. What a cut leaves is served by a fresh process, and every acknowledged write must
//! be there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::disk::Cut;
use super::{CutImage, PoweredDisk};
use crate::cluster::{Cluster, Load, Options, Stopped, verify};
use crate::ledger::{Acked, Ledger, Mix};
use crate::random::Random;

/// The disk of one run.
const DISK_BYTES: usize = 512 << 20;
/// Inline values of every order of size, up to the inline limit, and some that go to chunk files.
const MIX: Mix =
    Mix { sizes: &[(60, 100), (20, 10 << 10), (18, 16 << 10), (2, 1 << 20)], delete_percent: 10 };
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

/// Runs the store on a fresh disk and cuts the power `cuts` times: first in the life of a new store, then in
/// that of the store which the last of those cuts left.
pub fn run(seed: u64, cuts: u64) -> anyhow::Result<Vec<Outcome>> {
    // A runtime of its own: its threads must be in this thread's view of the mounts.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(two_lives(seed, cuts))
}

async fn two_lives(seed: u64, cuts: u64) -> anyhow::Result<Vec<Outcome>> {
    let disk = PoweredDisk::new(DISK_BYTES)?;
    let first_data_dir = Some(disk.folder().join("data"));
    let cluster = Cluster::started(Options { first_data_dir, ..Options::default() }).await?;
    let namespace = cluster.rest(0, "").create_namespace("power").await?;
    let mut suite =
        Suite { cluster, namespace, ledger: Arc::new(Ledger::new(seed, MIX)), random: Random::new(seed) };

    let second_cuts = cuts / 2;
    let images = suite.write_and_cut(&disk, cuts - second_cuts).await;
    suite.cluster.kill9(0)?;
    let images = images?;
    let last = images.last().filter(|_| second_cuts > 0);
    let revived =
        last.map(|(acked, image)| anyhow::Ok((acked.clone(), PoweredDisk::revived(image)?))).transpose()?;
    drop(disk);
    let mut outcomes = suite.check(images).await?;
    let Some((acked, disk)) = revived else { return Ok(outcomes) };
    if outcomes.iter().any(|outcome| outcome.wrong > 0) {
        return Ok(outcomes);
    }

    suite.cluster.move_data(0, disk.folder().join("data"))?;
    suite.cluster.start(0)?;
    suite.cluster.wait_ready(0).await?;
    suite.ledger.go_back(&acked);
    let verdict = verify(&suite.cluster.rest(0, &suite.namespace), &suite.ledger, &acked).await;
    suite.ledger.note_seen(&verdict.seen);
    let images = suite.write_and_cut(&disk, second_cuts).await;
    suite.cluster.kill9(0)?;
    drop(disk);
    outcomes.extend(suite.check(images?).await?);
    Ok(outcomes)
}

struct Suite {
    cluster: Cluster,
    namespace: String,
    ledger: Arc<Ledger>,
    random: Random,
}

impl Suite {
    async fn write_and_cut(
        &mut self,
        disk: &PoweredDisk,
        cuts: u64,
    ) -> anyhow::Result<Vec<(Acked, CutImage)>> {
        let rest = self.cluster.rest(0, &self.namespace);
        let load = Load::start(&rest, &self.ledger, WRITERS, KEYS_PER_WRITER);
        let mut images = Vec::new();
        for _ in 0..cuts {
            let wait = CUT_AFTER + Duration::from_micros(self.random.below(CUT_AFTER.as_micros() as u64));
            tokio::time::sleep(wait).await;
            // First what was acknowledged, then the cut: everything counted was acknowledged before it.
            let acked = self.ledger.acked();
            images.push((acked, tokio::task::block_in_place(|| disk.cut(self.random.next_u64()))?));
        }
        for stopped in load.stop().await {
            ensure!(matches!(stopped, Stopped::Asked), "a writer gave up: {stopped:?}");
        }
        Ok(images)
    }

    async fn check(&mut self, images: Vec<(Acked, CutImage)>) -> anyhow::Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for (acked, image) in images {
            let cut = image.cut;
            let disk = image.mount().context("mounting what a cut left")?;
            self.cluster.move_data(0, disk.folder().join("data"))?;
            self.cluster.start(0)?;
            let wrong = match self.cluster.wait_ready(0).await {
                Ok(()) => verify(&self.cluster.rest(0, &self.namespace), &self.ledger, &acked).await.wrong,
                Err(error) => vec![format!("{error:#}")],
            };
            self.cluster.kill9(0)?;
            let acked = acked.values().sum();
            outcomes.push(Outcome { acked, wrong: wrong.len(), example: wrong.into_iter().next(), cut });
        }
        Ok(outcomes)
    }
}
