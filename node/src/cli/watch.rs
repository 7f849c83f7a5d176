//! `kv watch`: what changes in a namespace, a line for each event, until Ctrl-C.

use littoral::WatchOptions;
use littoral::api::watch::{WatchEvent, WatchKind, WatchType};

use super::connection::AccountArgs;
use super::failure::Failure;
use super::print;

/// The most characters of a value on a line.
const MAX_SHOWN_CHARS: usize = 60;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Only keys that begin with this
    #[arg(long, default_value = "")]
    prefix: String,
    /// Only this key
    #[arg(long, conflicts_with = "prefix")]
    key: Option<String>,
    /// Only this kind of entry: value, counter, bounded, set, map or doc
    #[arg(long, value_parser = kind)]
    kind: Option<WatchKind>,
    /// Leave out what is there already
    #[arg(long)]
    no_snapshot: bool,
    /// Go on from this cursor, which --json shows
    #[arg(long)]
    cursor: Option<String>,
    /// End after so many events
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

fn kind(text: &str) -> Result<WatchKind, String> {
    let kind = WatchKind::ALL.into_iter().find(|kind| kind.name() == text);
    kind.ok_or_else(|| "a kind is value, counter, bounded, set, map or doc".into())
}

pub(super) async fn run(args: Args, account: &AccountArgs, json: bool) -> Result<(), Failure> {
    let options = WatchOptions {
        prefix: args.prefix,
        key: args.key,
        kind: args.kind,
        without_snapshot: args.no_snapshot,
        cursor: args.cursor,
    };
    let mut left = args.limit.unwrap_or(usize::MAX);
    let mut watch = account.namespace().await?.watch(options);
    while left > 0 {
        let event = watch.next().await?;
        left -= 1;
        match json {
            true => print::json(&event)?,
            false => line(&event).map_or(Ok(()), print::line)?,
        }
    }
    Ok(())
}

/// An event for people; `None` for what is of no interest to them.
fn line(event: &WatchEvent) -> Option<String> {
    let what = match event.what {
        WatchType::Put => "put",
        WatchType::Delete => "delete",
        WatchType::Clear => "clear",
        WatchType::Describe => "describe",
        WatchType::Sync => return Some("-- all that is there was shown; changes follow".into()),
        WatchType::Reset => return Some("-- what was shown may be out of date; all follows anew".into()),
        WatchType::Behind => return Some("-- too slow; what was missed follows in its latest state".into()),
        WatchType::Cursor | WatchType::End | WatchType::Other => return None,
    };
    let mut line = format!("{what:<8}");
    let element = event.element.as_ref().or(event.element_base64.as_ref());
    let names = [event.kind.map(WatchKind::name), event.key.as_deref(), element.map(String::as_str)];
    names.into_iter().flatten().for_each(|name| line += &format!("  {}", print::name(name)));
    let text = event.value.as_ref().or(event.base64.as_ref()).map(|text| shortened(text));
    let size = event.size.map(|size| format!("({})", print::size(size)));
    let count = event.count.map(|count| count.to_string());
    [text, size, count].into_iter().flatten().for_each(|shown| line += &format!("  {shown}"));
    Some(line)
}

fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    print::name(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_short_line() {
        let mut event = WatchEvent::of(WatchType::Put);
        (event.kind, event.key) = (Some(WatchKind::Map), Some("a\nb".into()));
        (event.element, event.value) = (Some("field".into()), Some("ü".repeat(MAX_SHOWN_CHARS)));
        let value = "ü".repeat(MAX_SHOWN_CHARS);
        assert_eq!(line(&event).unwrap(), format!("put       map  a\\nb  field  {value}"));
        event.value = Some(format!("{value}ü"));
        assert!(line(&event).unwrap().ends_with("ü…"));
        assert_eq!(line(&WatchEvent::of(WatchType::Cursor)), None);
    }
}
