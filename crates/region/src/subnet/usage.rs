//! What the addresses of a subnet are used for.

use metal::ipam::usage::{Span, Usage};
use serde_json::{Value, json};

use super::ops::find;
use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::ipam::{self, Addresses};

/// A count in JSON. Beyond 2^64, which IPv6 subnets reach, it is the nearest number that there is.
#[allow(clippy::cast_precision_loss)] // as said
fn count(n: u128) -> Value {
    u64::try_from(n).map_or_else(|_| json!(n as f64), |n| json!(n))
}

fn plain(span: &Span) -> Value {
    json!({
        "start": span.start.to_string(),
        "end": span.end.to_string(),
        "num_addresses": count(span.size()),
    })
}

fn with_purpose(span: &Span) -> Value {
    let mut o = plain(span);
    let mut words: Vec<&str> = span.purposes.iter().map(|p| p.word()).collect();
    words.sort_unstable();
    if words.is_empty() {
        words.push("unused");
    }
    o["purpose"] = words.into();
    o
}

async fn load(call: &Call) -> Result<(Addresses, Usage), ApiError> {
    let mut tx = call.read().await?;
    let id = find(&mut tx, call).await?.id;
    let addresses = ipam::addresses(&mut tx, id, call.now()).await?;
    let usage = addresses.network.usage(&addresses.taken);
    Ok((addresses, usage))
}

pub(super) async fn reserved_ranges(call: Call) -> Result<Answer, ApiError> {
    let (_, usage) = load(&call).await?;
    let used = usage.spans.iter().filter(|s| !s.is_unused());
    Ok(Answer::json(used.map(with_purpose).collect()))
}

pub(super) async fn unreserved_ranges(call: Call) -> Result<Answer, ApiError> {
    let (_, usage) = load(&call).await?;
    let free = usage.spans.iter().filter(|s| s.is_unused());
    Ok(Answer::json(free.map(plain).collect()))
}

pub(super) async fn statistics(call: Call) -> Result<Answer, ApiError> {
    let args = call.args();
    let ranges = args.bool("include_ranges")?.unwrap_or(false);
    let suggestions = args.bool("include_suggestions")?.unwrap_or(false);
    let (addresses, usage) = load(&call).await?;
    let fraction = usage.fraction();
    let mut o = json!({
        "num_available": count(usage.available),
        "largest_available": count(usage.largest),
        "num_unavailable": count(usage.unavailable),
        "total_addresses": count(usage.total),
        "usage": fraction,
        "usage_string": format!("{:.0}%", fraction * 100.0),
        "available_string": format!("{:.0}%", (1.0 - fraction) * 100.0),
        "first_address": usage.first.to_string(),
        "last_address": usage.last.to_string(),
        "ip_version": if usage.first.is_ipv4() { 4 } else { 6 },
    });
    if ranges {
        o["ranges"] = usage.spans.iter().map(with_purpose).collect();
    }
    if suggestions {
        let network = &addresses.network;
        let gateway = network.suggest_gateway(&usage);
        o["suggested_gateway"] = gateway.map(|g| g.to_string()).into();
        o["suggested_dynamic_range"] = network
            .suggest_dynamic(&usage)
            .map_or(Value::Null, |s| plain(&s));
    }
    Ok(Answer::json(o))
}
