//! `kv namespace quota`: what a namespace may hold and be asked, and what it has.

use bytesize::ByteSize;
use littoral::Account;
use littoral::api::quotas::{Quota, QuotaReport};

use super::connection::id_of;
use super::failure::Failure;
use super::print;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Its id or its title
    named: String,
    /// How many requests a second each PoP takes, of all who ask; or none
    #[arg(long, value_parser = count)]
    requests_per_s: Option<Bound>,
    /// How many bytes of keys, values and metadata it may have, such as 500MB or 10GiB; or none
    #[arg(long, value_parser = bytes)]
    max_bytes: Option<Bound>,
    /// How many keys it may have; or none
    #[arg(long, value_parser = count)]
    max_keys: Option<Bound>,
    /// How many bytes one document may be, as it is stored; or none
    #[arg(long, value_parser = bytes)]
    max_document_bytes: Option<Bound>,
    /// How many operations the history of one document may have; or none
    #[arg(long, value_parser = count)]
    max_document_ops: Option<Bound>,
}

/// A bound that was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bound(Option<u64>);

/// Sets the bounds that were typed, leaves the others, and shows what holds then.
pub(super) async fn run(args: &Args, account: &Account, json: bool) -> Result<(), Failure> {
    let id = id_of(&args.named, account).await?;
    let mut report = account.quota(&id).await.map_err(Failure::of_one)?;
    let quota = args.applied_to(report.quota);
    if quota != report.quota {
        report = account.set_quota(&id, &quota).await.map_err(Failure::of_one)?;
    }
    if json { print::json(&report) } else { print::line(page(&report)) }
}

impl Args {
    fn applied_to(&self, quota: Quota) -> Quota {
        let bound = |typed: Option<Bound>, present| typed.map_or(present, |Bound(bound)| bound);
        Quota {
            requests_per_s: bound(self.requests_per_s, quota.requests_per_s),
            max_bytes: bound(self.max_bytes, quota.max_bytes),
            max_keys: bound(self.max_keys, quota.max_keys),
            max_document_bytes: bound(self.max_document_bytes, quota.max_document_bytes),
            max_document_ops: bound(self.max_document_ops, quota.max_document_ops),
        }
    }
}

fn page(report: &QuotaReport) -> String {
    let QuotaReport { quota, used, .. } = report;
    let bound = |bound: Option<u64>, shown: fn(u64) -> String| bound.map_or_else(|| "none".into(), shown);
    let row = |what: &str, used: String, bound| [what.to_owned(), used, bound];
    print::table(
        ["QUOTA", "USED", "LIMIT"],
        [
            row("keys", print::count(used.keys), bound(quota.max_keys, print::count)),
            row("bytes", print::size(used.bytes), bound(quota.max_bytes, print::size)),
            row("requests a second", String::new(), bound(quota.requests_per_s, print::count)),
            row("bytes of a document", String::new(), bound(quota.max_document_bytes, print::size)),
            row("operations of one", String::new(), bound(quota.max_document_ops, print::count)),
        ],
    )
}

fn count(text: &str) -> Result<Bound, String> {
    if text == "none" {
        return Ok(Bound(None));
    }
    text.parse().map(|count| Bound(Some(count))).map_err(|_| "write a whole number, or none".into())
}

fn bytes(text: &str) -> Result<Bound, String> {
    if text == "none" {
        return Ok(Bound(None));
    }
    let size = text.parse::<ByteSize>();
    size.map(|size| Bound(Some(size.as_u64()))).map_err(|_| "write 500MB, 10GiB or none".into())
}

#[cfg(test)]
mod tests {
    use littoral::api::quotas::Used;

    use super::*;

    #[test]
    fn bounds_are_typed_as_people_write_them() {
        for (text, bound) in [("1000", Some(1000)), ("0", Some(0)), ("none", None)] {
            assert_eq!((count(text), bytes(text)), (Ok(Bound(bound)), Ok(Bound(bound))), "{text}");
        }
        assert_eq!(bytes("10GiB"), Ok(Bound(Some(10 << 30))));
        for bad in ["", "-1", "many"] {
            assert!(count(bad).is_err() && bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_typed_stays() {
        let present = Quota { requests_per_s: Some(1), max_bytes: Some(2), ..Quota::default() };
        let args = |max_bytes, max_keys| Args {
            named: "demo".into(),
            requests_per_s: None,
            max_bytes,
            max_keys,
            max_document_bytes: None,
            max_document_ops: None,
        };
        assert_eq!(args(None, None).applied_to(present), present);
        let changed = args(Some(Bound(None)), Some(Bound(Some(3)))).applied_to(present);
        assert_eq!(changed, Quota { max_bytes: None, max_keys: Some(3), ..present });
    }

    #[test]
    fn the_page_fits_80_columns() {
        let quota = Quota { requests_per_s: Some(1_000_000), max_bytes: Some(1 << 50), ..Quota::default() };
        let used = Used { bytes: u64::MAX, keys: u64::MAX };
        let text = page(&QuotaReport { namespace: "ab".repeat(16), quota, used });
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("1,000,000") && text.contains("1.00 PiB") && text.contains("none"), "{text}");
    }
}
