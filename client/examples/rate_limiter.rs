//! A rate limiter: each PoP counts a client's requests and lets so many through, without asking another PoP.
//!
//! The count of a window is a counter with a time to live, so that nothing is left of windows that are over. Each PoP decides
//! by what it has counted and heard: requests to two PoPs in the same milliseconds may go through beyond the limit, by as
//! many as each takes before it hears of the other.

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use littoral::{ChangeOptions, Client, Counter, Namespace};

const LIMIT: i64 = 5;
const WINDOW_S: u64 = 60;
/// How soon all PoPs must have heard of each other.
const AGREE_WITHIN: Duration = Duration::from_secs(20);

/// Whether a request of this client may go through, by this PoP.
async fn admit(kv: &Namespace, client: &str, now_s: u64) -> Result<bool, littoral::Error> {
    let counter = window(kv, client, now_s);
    if counter.count().await?.unwrap_or(0) >= LIMIT {
        return Ok(false);
    }
    // Kept for a second window: clocks differ, and who looks late shall still find it.
    let options = ChangeOptions::default().expiration_ttl_s(2 * WINDOW_S);
    Ok(counter.add_with(1, options).await? <= LIMIT)
}

fn window(kv: &Namespace, client: &str, now_s: u64) -> Counter {
    kv.counter(&format!("rate:{client}:{}", now_s / WINDOW_S))
}

/// Sends requests of one client to one PoP after the other, until each refuses.
pub(crate) async fn run(urls: &[String], account: &str, token: &str) -> Result<(), Box<dyn Error>> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    // A client of its own for each run, so that an earlier one does not count.
    let client = format!("client-{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros());
    let first = Client::new(&urls[0], token)?.account(account).namespace_titled("demo").await?;
    let mut admitted = 0;
    for url in urls {
        // It goes on with the session of the first, so that it knows the namespace, and what was counted there.
        let session = first.client().session().unwrap_or("new".into());
        let kv = Client::new(url, token)?.with_session(&session)?.account(account).namespace(first.id());
        for _ in 0..3 {
            let goes = admit(&kv, &client, now_s).await?;
            println!("{url}: {}", if goes { "200 OK" } else { "429 Too Many Requests" });
            admitted += i64::from(goes);
        }
    }
    println!("{admitted} went through; the limit is {LIMIT} in {WINDOW_S} s");
    for url in urls {
        let counter =
            window(&Client::new(url, token)?.account(account).namespace(first.id()), &client, now_s);
        let counted = async {
            while counter.count().await? < Some(admitted) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok::<_, littoral::Error>(())
        };
        tokio::time::timeout(AGREE_WITHIN, counted).await??;
        println!("{url} has counted {admitted}, and refuses: {}", counter.count().await? >= Some(LIMIT));
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // What `littoral dev` prints.
    let mut urls: Vec<String> = std::env::args().skip(1).collect();
    if urls.is_empty() {
        urls = ["http://127.0.0.1:8787", "http://127.0.0.1:8788", "http://127.0.0.1:8789"]
            .map(Into::into)
            .into();
    }
    run(&urls, "0123456789abcdef0123456789abcdef", "littoral-dev").await
}
