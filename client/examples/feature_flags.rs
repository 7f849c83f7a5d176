//! Feature flags: an app keeps all of them in memory by a watch at its PoP, and asks nobody when it looks at one.
//!
//! They are switched at another PoP. The watch tells what is there, then what changes; where its connection breaks it goes on
//! by itself.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use littoral::api::watch::{WatchEvent, WatchType};
use littoral::{Client, Namespace, Watch, WatchOptions};

/// How soon a flag that was switched must be heard of.
const HEARD_WITHIN: Duration = Duration::from_secs(20);

/// The flags, as the app's PoP has them.
struct Flags {
    watch: Watch,
    prefix: String,
    on: BTreeMap<String, bool>,
}

impl Flags {
    /// Watches all that begin with this, and waits until those that are there have come.
    async fn watched(kv: &Namespace, prefix: &str) -> Result<Self, littoral::Error> {
        let watch = kv.watch(WatchOptions { prefix: prefix.into(), ..WatchOptions::default() });
        let mut flags = Self { watch, prefix: prefix.into(), on: BTreeMap::new() };
        while flags.next().await? != WatchType::Sync {}
        Ok(flags)
    }

    /// From memory.
    fn is_on(&self, name: &str) -> bool {
        self.on.get(name).copied().unwrap_or(false)
    }

    /// Takes the next event in. An app does so in a task of its own.
    async fn next(&mut self) -> Result<WatchType, littoral::Error> {
        let WatchEvent { what, key, value, .. } = self.watch.next().await?;
        let name = key.as_ref().and_then(|key| key.strip_prefix(&self.prefix));
        match (what, name) {
            // All that is there comes anew.
            (WatchType::Reset, _) => self.on.clear(),
            (WatchType::Delete, Some(name)) => drop(self.on.remove(name)),
            (_, Some(name)) => drop(self.on.insert(name.into(), value.as_deref() == Some("on"))),
            (_, None) => {}
        }
        Ok(what)
    }

    async fn until(&mut self, name: &str, is_on: bool) -> Result<(), Box<dyn Error>> {
        let heard = async {
            while self.is_on(name) != is_on {
                self.next().await?;
            }
            Ok::<_, littoral::Error>(())
        };
        Ok(tokio::time::timeout(HEARD_WITHIN, heard).await??)
    }
}

/// Switches flags at the first PoP, and looks at them at the last.
pub(crate) async fn run(urls: &[String], account: &str, token: &str) -> Result<(), Box<dyn Error>> {
    let (office_url, app_url) = (&urls[0], &urls[urls.len() - 1]);
    let prefix = format!("flags:{}:", SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros());
    let office = Client::new(office_url, token)?.account(account).namespace_titled("demo").await?;
    office.put(&format!("{prefix}search"), "on", Default::default()).await?;
    // The app has seen what the office has: its PoP waits for that.
    let session = office.client().session().unwrap_or("new".into());
    let app = Client::new(app_url, token)?.with_session(&session)?.account(account).namespace(office.id());
    app.get(&format!("{prefix}search")).await?;

    let mut flags = Flags::watched(&app, &prefix).await?;
    flags.until("search", true).await?;
    println!("{app_url}: search is on, checkout is {}", if flags.is_on("checkout") { "on" } else { "off" });
    println!("{office_url}: checkout is switched on, search off");
    office.put(&format!("{prefix}checkout"), "on", Default::default()).await?;
    office.delete(&format!("{prefix}search")).await?;
    flags.until("checkout", true).await?;
    flags.until("search", false).await?;
    println!("{app_url}: has heard of both; it looks at them in memory from now on");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // What `littoral dev` prints.
    let mut urls: Vec<String> = std::env::args().skip(1).collect();
    if urls.is_empty() {
        urls = ["http://127.0.0.1:8787", "http://127.0.0.1:8789"].map(Into::into).into();
    }
    run(&urls, "0123456789abcdef0123456789abcdef", "littoral-dev").await
}
