//! `counter`, `bounded`, `set` and `map`: the kinds beside values, from the command line.

use std::time::Duration;

use futures_util::TryStreamExt;
use littoral::api::kinds::BoundedInfo;
use littoral::{ChangeOptions, PageOptions};
use serde::Serialize;
use serde_json::json;

use super::condition::{ConditionArgs, show_etag};
use super::connection::AccountArgs;
use super::failure::Failure;
use super::print;

#[derive(clap::Args)]
pub(super) struct CounterArgs {
    #[command(flatten)]
    account: AccountArgs,
    #[command(subcommand)]
    command: CounterCommand,
}

#[derive(clap::Subcommand)]
enum CounterCommand {
    /// Add to a counter, and show what it stands at as of this PoP
    Add {
        /// The key
        key: String,
        /// How much; below 0 takes away
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        amount: i64,
        /// What this PoP has counted is over so many seconds from now
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
        #[command(flatten)]
        condition: ConditionArgs,
    },
    /// Show what a counter stands at
    Get {
        /// The key
        key: String,
        /// Write the name of its state instead, for --if-match
        #[arg(long)]
        etag: bool,
    },
    /// Take away what this PoP has seen; no error if there is no counter
    Reset {
        /// The key
        key: String,
    },
}

#[derive(clap::Args)]
pub(super) struct BoundedArgs {
    #[command(flatten)]
    account: AccountArgs,
    #[command(subcommand)]
    command: BoundedCommand,
}

#[derive(clap::Subcommand)]
enum BoundedCommand {
    /// Add to a bounded counter, and show what it stands at as of this PoP
    Add {
        /// The key
        key: String,
        /// How much
        #[arg(default_value_t = 1)]
        amount: u64,
    },
    /// Take from a bounded counter, or fail where too little is left, and show what it stands at
    Take {
        /// The key
        key: String,
        /// How much
        #[arg(default_value_t = 1)]
        amount: u64,
        /// Wait so long at most for what other PoPs hold; as long as the PoP allows unless given
        #[arg(long, value_name = "MILLISECONDS")]
        timeout: Option<u64>,
    },
    /// Show what a bounded counter stands at
    Get {
        /// The key
        key: String,
    },
    /// Delete a bounded counter as this PoP has seen it; no error if there is none
    Delete {
        /// The key
        key: String,
    },
}

#[derive(clap::Args)]
pub(super) struct SetArgs {
    #[command(flatten)]
    account: AccountArgs,
    #[command(subcommand)]
    command: SetCommand,
}

#[derive(clap::Subcommand)]
enum SetCommand {
    /// Put a member in
    Add {
        /// The set's key
        key: String,
        /// The member
        member: String,
        /// Expire so many seconds from now
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
        #[command(flatten)]
        condition: ConditionArgs,
    },
    /// Take a member out; no error if it is not in
    Remove {
        /// The set's key
        key: String,
        /// The member
        member: String,
    },
    /// List members, one a line, in the order of their bytes
    List {
        /// The set's key
        key: String,
        #[command(flatten)]
        span: Span,
    },
    /// Say whether a member is in: exit code 0 if it is, 4 if not
    Contains {
        /// The set's key
        key: String,
        /// The member
        member: String,
        /// Write the name of its state, for --if-match
        #[arg(long)]
        etag: bool,
    },
}

#[derive(clap::Args)]
pub(super) struct MapArgs {
    #[command(flatten)]
    account: AccountArgs,
    #[command(subcommand)]
    command: MapCommand,
}

#[derive(clap::Subcommand)]
enum MapCommand {
    /// Give a field a value
    Put {
        /// The map's key
        key: String,
        /// The field
        field: String,
        /// The value
        value: String,
        /// Expire so many seconds from now
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u64>,
        #[command(flatten)]
        condition: ConditionArgs,
    },
    /// Write the bytes of a field to standard output, as they are
    Get {
        /// The map's key
        key: String,
        /// The field
        field: String,
        /// Write the name of its state instead, for --if-match
        #[arg(long)]
        etag: bool,
    },
    /// Take a field away; no error if there is none
    Remove {
        /// The map's key
        key: String,
        /// The field
        field: String,
    },
    /// List fields with their values, one a line, in the order of their bytes
    List {
        /// The map's key
        key: String,
        #[command(flatten)]
        span: Span,
    },
}

/// What of a set or map to list.
#[derive(clap::Args)]
struct Span {
    /// Only names that begin with this
    #[arg(long, default_value = "")]
    prefix: String,
    /// At most so many
    #[arg(long)]
    limit: Option<usize>,
}

impl Span {
    fn options(&self) -> PageOptions {
        PageOptions { prefix: self.prefix.clone(), ..PageOptions::default() }
    }
}

pub(super) async fn counter(args: CounterArgs, json: bool) -> Result<(), Failure> {
    let namespace = args.account.namespace().await?;
    match args.command {
        CounterCommand::Add { key, amount, ttl, condition } => {
            let count = namespace.counter(&key).add_with(amount, options(ttl, condition)).await?;
            if json {
                print::json(&json!({ "key": key, "count": count }))
            } else {
                print::line(count.to_string())
            }
        }
        CounterCommand::Get { key, etag } => {
            let missing = || Failure::not_found(format!("there is no counter {key:?}"));
            let (info, state) = namespace.counter(&key).info_versioned().await?.ok_or_else(missing)?;
            if etag {
                return show_etag(&key, &state, json);
            }
            if json { print::json(&info) } else { print::line(info.count.to_string()) }
        }
        CounterCommand::Reset { key } => {
            namespace.counter(&key).reset().await?;
            done(json, &json!({ "key": key, "reset": true }))
        }
    }
}

pub(super) async fn bounded(args: BoundedArgs, json: bool) -> Result<(), Failure> {
    let namespace = args.account.namespace().await?;
    let show = |info: &BoundedInfo| {
        if json { print::json(info) } else { print::line(info.count.to_string()) }
    };
    match args.command {
        BoundedCommand::Add { key, amount } => show(&namespace.bounded(&key).add(amount).await?),
        BoundedCommand::Take { key, amount, timeout: None } => {
            show(&namespace.bounded(&key).take(amount).await?)
        }
        BoundedCommand::Take { key, amount, timeout: Some(ms) } => {
            show(&namespace.bounded(&key).take_within(amount, Duration::from_millis(ms)).await?)
        }
        BoundedCommand::Get { key } => {
            let missing = || Failure::not_found(format!("there is no bounded counter {key:?}"));
            show(&namespace.bounded(&key).info().await?.ok_or_else(missing)?)
        }
        BoundedCommand::Delete { key } => {
            namespace.bounded(&key).delete().await?;
            done(json, &json!({ "key": key, "deleted": true }))
        }
    }
}

pub(super) async fn set(args: SetArgs, json: bool) -> Result<(), Failure> {
    let namespace = args.account.namespace().await?;
    match args.command {
        SetCommand::Add { key, member, ttl, condition } => {
            namespace.set(&key).insert_with(&member, options(ttl, condition)).await?;
            done(json, &json!({ "key": key, "member": member, "added": true }))
        }
        SetCommand::Remove { key, member } => {
            namespace.set(&key).remove(&member).await?;
            done(json, &json!({ "key": key, "member": member, "removed": true }))
        }
        SetCommand::Contains { key, member, etag } => {
            let missing = || Failure::not_found(format!("{member:?} is not in the set {key:?}"));
            let state = namespace.set(&key).etag(&member).await?.ok_or_else(missing)?;
            if etag {
                return show_etag(&key, &state, json);
            }
            done(json, &json!({ "key": key, "member": member, "contained": true }))
        }
        SetCommand::List { key, span } => {
            let mut left = span.limit.unwrap_or(usize::MAX);
            let mut rows = std::pin::pin!(namespace.set(&key).members(span.options()).rows());
            while left > 0
                && let Some(member) = rows.try_next().await?
            {
                if json {
                    json_line(&member)?
                } else {
                    print::line(print::name(&member.name))?
                }
                left -= 1;
            }
            Ok(())
        }
    }
}

pub(super) async fn map(args: MapArgs, json: bool) -> Result<(), Failure> {
    let namespace = args.account.namespace().await?;
    match args.command {
        MapCommand::Put { key, field, value, ttl, condition } => {
            namespace.map(&key).put_with(&field, value, options(ttl, condition)).await?;
            done(json, &json!({ "key": key, "field": field }))
        }
        MapCommand::Get { key, field, etag } => {
            let missing = || Failure::not_found(format!("there is no field {field:?} in the map {key:?}"));
            let value = namespace.map(&key).get_versioned(&field).await?.ok_or_else(missing)?;
            if etag {
                return show_etag(&key, &value.etag, json);
            }
            if json {
                let field = littoral::api::kinds::Field::new(field, &value.bytes, value.expires_at_s);
                return print::json(&field);
            }
            print::bytes(&value.bytes)
        }
        MapCommand::Remove { key, field } => {
            namespace.map(&key).remove(&field).await?;
            done(json, &json!({ "key": key, "field": field, "removed": true }))
        }
        MapCommand::List { key, span } => {
            let mut left = span.limit.unwrap_or(usize::MAX);
            let mut rows = std::pin::pin!(namespace.map(&key).fields(span.options()).rows());
            while left > 0
                && let Some(field) = rows.try_next().await?
            {
                if json {
                    json_line(&field)?;
                } else {
                    let shown = field.value.as_deref().map_or_else(
                        || format!("base64:{}", field.base64.as_deref().unwrap_or_default()),
                        print::name,
                    );
                    print::line(format!("{}  {shown}", print::name(&field.name)))?;
                }
                left -= 1;
            }
            Ok(())
        }
    }
}

fn options(ttl: Option<u64>, condition: ConditionArgs) -> ChangeOptions {
    ChangeOptions { expiration_ttl_s: ttl, condition: condition.given(), ..ChangeOptions::default() }
}

/// What a write prints that has nothing to show: nothing, or what it has done as JSON.
fn done(json: bool, what: &serde_json::Value) -> Result<(), Failure> {
    if json { print::json(what) } else { Ok(()) }
}

fn json_line(row: &impl Serialize) -> Result<(), Failure> {
    print::line(serde_json::to_string(row).map_err(Failure::new)?)
}
