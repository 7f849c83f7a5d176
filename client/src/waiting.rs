//! Writes that wait until other PoPs hold them.

use std::time::Duration;

use crate::client::Client;
use crate::namespace::Namespace;

/// What the writes of a client wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) wait: Option<String>,
    pub(crate) timeout: Option<Duration>,
}

impl Client {
    /// A client whose writes of keys are acknowledged when so many other PoPs hold them durably, or the time is up, see
    /// [`Client::held_by`]: the write is done in any case.
    pub fn wait(&self, pops: usize) -> Self {
        self.waiting_for(pops.to_string())
    }

    /// As [`Client::wait`], for all members of the cluster.
    pub fn wait_for_all(&self) -> Self {
        self.waiting_for("all".into())
    }

    /// As [`Client::wait`], for at least one other PoP in this region.
    pub fn wait_region(&self, region: &str) -> Self {
        self.waiting_for(format!("region={region}"))
    }

    /// As this client, with another time than the node's (`http.session_wait_ms`, 5 s) for waiting, which it cannot exceed.
    pub fn wait_timeout(&self, timeout: Duration) -> Self {
        let waiting = Waiting { timeout: Some(timeout), ..self.waiting.clone() };
        Self { waiting, ..self.clone() }
    }

    fn waiting_for(&self, wait: String) -> Self {
        let waiting = Waiting { wait: Some(wait), ..self.waiting.clone() };
        Self { waiting, ..self.clone() }
    }
}

impl Namespace {
    /// The same namespace, whose writes wait as those of [`Client::wait`].
    ///
    /// ```no_run
    /// # async fn example(kv: littoral::Namespace) -> Result<(), littoral::Error> {
    /// let careful = kv.wait(1);
    /// careful.put("order:7", "paid", Default::default()).await?;
    /// if careful.client().held_by().is_some_and(|held| !held.is_met) {
    ///     println!("it is on its way");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn wait(&self, pops: usize) -> Self {
        self.through(self.account.client.wait(pops))
    }

    /// As [`Client::wait_for_all`].
    pub fn wait_for_all(&self) -> Self {
        self.through(self.account.client.wait_for_all())
    }

    /// As [`Client::wait_region`].
    pub fn wait_region(&self, region: &str) -> Self {
        self.through(self.account.client.wait_region(region))
    }

    /// The client it is reached through.
    pub fn client(&self) -> &Client {
        &self.account.client
    }

    fn through(&self, client: Client) -> Self {
        let mut same = self.clone();
        same.account.client = client;
        same
    }
}
