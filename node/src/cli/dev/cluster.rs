//! The folder of a local cluster, and its PoPs as processes.
//!
//! `DIR/cluster` has the authority; `DIR/popN` has `identity`, `data`, `config.toml` (written anew at each
//! start) and `littoral.log`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{
    AccountId, Budgets, Config, Conflicts, Documents, Http, Log, Node, Peer, PopName, Replication, Secret,
    Storage, Token,
};
use futures_util::future::join_all;
use littoral::api::Status;
use littoral::{Client, Namespace};

use super::Failure;
use super::pop::Pop;
use super::ports::Ports;
use crate::identity;

/// The namespace that is there from the start.
pub(super) const NAMESPACE: &str = "demo";
/// The region of all PoPs: one machine is one place.
const REGION: &str = "local";
/// A join token is used at once.
const TOKEN_VALIDITY: Duration = Duration::from_secs(600);
/// The cache of each PoP: many share one machine's memory.
const CACHE_BYTES: u64 = 64 << 20;
/// How long a PoP may take to say how it is.
const STATUS_TIME: Duration = Duration::from_secs(1);

/// A local cluster.
pub(super) struct Cluster {
    pub(super) folder: PathBuf,
    pub(super) account: AccountId,
    pub(super) token: Secret,
    /// At least one.
    pub(super) pops: Vec<Pop>,
}

impl Cluster {
    /// Makes, or finds again, identities and data folders, and writes the configurations.
    pub(super) fn lay_out(
        folder: &Path,
        pops: u16,
        ports: &Ports,
        account: &AccountId,
        token: &Secret,
    ) -> Result<Self, Failure> {
        let authority = folder.join("cluster");
        if !authority.exists() {
            identity::init_cluster(&authority).map_err(Failure::new)?;
        }
        let names = (1..=pops).map(pop_name).collect::<Result<Vec<_>, Failure>>()?;
        let mut cluster =
            Self { folder: folder.into(), account: account.clone(), token: token.clone(), pops: Vec::new() };
        for (index, name) in (0..).zip(&names) {
            let own = folder.join(name.as_ref());
            fs::create_dir_all(&own)?;
            if !own.join("identity").exists() {
                let token = identity::join_token(&authority, name.as_ref(), TOKEN_VALIDITY);
                let token = token.map_err(Failure::new)?;
                identity::init_node(&own.join("identity"), &token).map_err(Failure::new)?;
            }
            let config = cluster.config(name, index, &names, ports);
            let config_file = own.join("config.toml");
            write_private(&config_file, &config.to_toml())?;
            let client = Client::new(&format!("http://{}", config.http.listen), token.reveal())?;
            cluster.pops.push(Pop::new(name.to_string(), own, config_file, client));
        }
        Ok(cluster)
    }

    fn config(&self, name: &PopName, index: u16, names: &[PopName], ports: &Ports) -> Config {
        let here = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let others = (0..).zip(names).filter(|(other, _)| *other != index);
        let peers = others.map(|(other, pop)| Peer::new(pop.clone(), here(ports.quic + other).to_string()));
        Config {
            node: Node {
                pop: name.clone(),
                region: REGION.into(),
                data_dir: "data".into(),
                identity_dir: "identity".into(),
            },
            http: Http {
                listen: here(ports.http + index),
                tokens: vec![Token {
                    account: self.account.clone(),
                    token: self.token.clone(),
                    cluster: true,
                }],
                ..Http::default()
            },
            replication: Replication {
                listen: here(ports.quic + index),
                peers: peers.collect(),
                ..Replication::default()
            },
            budgets: Budgets::default(),
            storage: Storage { cache_bytes: CACHE_BYTES, ..Storage::default() },
            documents: Documents::default(),
            conflicts: Conflicts::default(),
            log: Log::default(),
        }
    }

    /// Starts all PoPs and waits until they serve.
    pub(super) async fn start(&mut self) -> Result<(), Failure> {
        for pop in &mut self.pops {
            pop.start()?;
        }
        for pop in &mut self.pops {
            pop.wait_ready().await?;
        }
        Ok(())
    }

    /// The namespace, found or made at the first PoP.
    pub(super) async fn namespace(&self) -> Result<Namespace, Failure> {
        let account = self.pops[0].client.account(self.account.as_ref());
        Ok(account.namespace_titled(NAMESPACE).await?)
    }

    /// The namespace with this id, at each PoP.
    pub(super) fn namespace_everywhere(&self, id: &str) -> Vec<Namespace> {
        self.pops.iter().map(|pop| pop.client.account(self.account.as_ref()).namespace(id)).collect()
    }

    /// What each PoP says of itself; `None` where it does not answer.
    pub(super) async fn statuses(&mut self) -> Vec<Option<Status>> {
        let asked = self.pops.iter_mut().map(|pop| async {
            if !pop.is_running() {
                return None;
            }
            tokio::time::timeout(STATUS_TIME, pop.client.status()).await.ok()?.ok()
        });
        join_all(asked).await
    }

    /// Stops all PoPs, cleanly if they let themselves be stopped in time.
    pub(super) async fn stop(&mut self) -> Result<(), Failure> {
        join_all(self.pops.iter_mut().map(Pop::stop)).await.into_iter().collect()
    }
}

fn pop_name(number: u16) -> Result<PopName, Failure> {
    format!("pop{number}").parse().map_err(Failure::new)
}

/// The file holds a token: only its owner may read it.
fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}
