//! A shopping cart: a map from article to quantity that two devices of one customer fill at two PoPs at once.
//!
//! What either puts in survives, whichever PoP hears of it first; what is taken out goes everywhere. With a plain value of
//! JSON the later write would have won, and the other's article would be gone.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::TryStreamExt;
use littoral::{Client, Map};

/// How soon all PoPs must have heard of each other.
const AGREE_WITHIN: Duration = Duration::from_secs(20);

/// What is in a cart, as of its PoP.
async fn articles(cart: &Map) -> Result<BTreeMap<String, String>, littoral::Error> {
    let fields = cart.fields(Default::default()).rows();
    fields.map_ok(|field| (field.name, field.value.unwrap_or_default())).try_collect().await
}

/// Waits until a cart is as it must be, and shows it.
async fn expect(url: &str, cart: &Map, expected: &[(&str, &str)]) -> Result<(), Box<dyn Error>> {
    let expected: BTreeMap<_, _> = expected.iter().map(|(a, n)| (a.to_string(), n.to_string())).collect();
    let agreed = async {
        while articles(cart).await? != expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok::<_, littoral::Error>(())
    };
    tokio::time::timeout(AGREE_WITHIN, agreed).await??;
    println!("{url}: {expected:?}");
    Ok(())
}

/// Fills one cart at the first PoP and at the last.
pub(crate) async fn run(urls: &[String], account: &str, token: &str) -> Result<(), Box<dyn Error>> {
    let (phone_url, laptop_url) = (&urls[0], &urls[urls.len() - 1]);
    let key = format!("cart:{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros());
    let kv = Client::new(phone_url, token)?.account(account).namespace_titled("demo").await?;
    let phone = kv.map(&key);
    // The laptop's requests carry what the phone's have seen: so its PoP knows the namespace.
    let session = kv.client().session().unwrap_or("new".into());
    let elsewhere = Client::new(laptop_url, token)?.with_session(&session)?;
    let laptop = elsewhere.account(account).namespace(kv.id()).map(&key);

    println!("the phone puts tea in at {phone_url}, the laptop cups at {laptop_url}, at once");
    let (tea, cups) = tokio::join!(phone.put("tea", "2"), laptop.put("cups", "4"));
    tea?;
    cups?;
    for (url, cart) in [(phone_url, &phone), (laptop_url, &laptop)] {
        expect(url, cart, &[("cups", "4"), ("tea", "2")]).await?;
    }
    println!("the phone takes the cups out again, while the laptop wants more tea");
    let (no_cups, more_tea) = tokio::join!(phone.remove("cups"), laptop.put("tea", "3"));
    no_cups?;
    more_tea?;
    for (url, cart) in [(phone_url, &phone), (laptop_url, &laptop)] {
        expect(url, cart, &[("tea", "3")]).await?;
    }
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
