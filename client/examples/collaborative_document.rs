//! A document that two people edit at once, each in a copy of their own at the nearest PoP, also without a connection.
//!
//! A copy is an Automerge document. `pull` and `push` bring over what either side lacks, whenever there is a connection, and a
//! watch brings each change as it comes. (With the feature `automerge` of the crate.)

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjType, ROOT, ReadDoc};
use littoral::{Client, Doc};

/// How soon both must have the other's edit.
const MEET_WITHIN: Duration = Duration::from_secs(20);

/// What the text says in a copy.
fn text(copy: &AutoCommit) -> Result<String, Box<dyn Error>> {
    let Some((_, text)) = copy.get(ROOT, "text")? else { return Ok(String::new()) };
    Ok(copy.text(text)?)
}

/// Puts words into the text of a copy, at this position.
fn write(copy: &mut AutoCommit, position: usize, words: &str) -> Result<(), Box<dyn Error>> {
    let text = match copy.get(ROOT, "text")? {
        Some((_, text)) => text,
        None => copy.put_object(ROOT, "text", ObjType::Text)?,
    };
    copy.splice_text(text, position, 0, words)?;
    Ok(())
}

/// Takes in what comes until the copy says this.
async fn until(doc: &Doc, copy: &mut AutoCommit, words: &str) -> Result<(), Box<dyn Error>> {
    let mut watch = doc.watch();
    let met = async {
        while text(copy)? != words {
            let event = watch.next().await?;
            doc.pull_event(copy, &event).await?;
        }
        Ok::<_, Box<dyn Error>>(())
    };
    tokio::time::timeout(MEET_WITHIN, met).await?
}

/// Ann edits at the first PoP, Ben at the last.
pub(crate) async fn run(urls: &[String], account: &str, token: &str) -> Result<(), Box<dyn Error>> {
    let (ann_url, ben_url) = (&urls[0], &urls[urls.len() - 1]);
    let key = format!("page:{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros());
    let kv = Client::new(ann_url, token)?.account(account).namespace_titled("demo").await?;
    let ann = kv.doc(&key);
    let mut anns = AutoCommit::new();
    write(&mut anns, 0, "High at noon")?;
    ann.push(&mut anns).await?;
    println!("Ann pushes to {ann_url}: {:?}", text(&anns)?);

    // Ben's requests carry what Ann's have seen: so his PoP waits until it has that.
    let session = kv.client().session().unwrap_or("new".into());
    let elsewhere = Client::new(ben_url, token)?.with_session(&session)?;
    let ben = elsewhere.account(account).namespace(kv.id()).doc(&key);
    let mut bens = AutoCommit::new();
    let taken = ben.pull(&mut bens).await?;
    println!("Ben pulls {taken} change from {ben_url}: {:?}", text(&bens)?);

    write(&mut anns, 0, "Tides: ")?;
    write(&mut bens, "High at noon".len(), ", low at six")?;
    println!("both edit, without a connection: {:?} and {:?}", text(&anns)?, text(&bens)?);
    ann.push(&mut anns).await?;
    ben.push(&mut bens).await?;
    let both = "Tides: High at noon, low at six";
    until(&ann, &mut anns, both).await?;
    until(&ben, &mut bens, both).await?;
    println!("both have pushed, and each has heard of the other's edit: {both:?}");
    let again = ann.push(&mut anns).await?;
    println!("Ann pushes once more, and nothing is sent: {}", again.receipt.is_none());
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
