//! `dnsresourcerecords`: data of names that is no address.

use metal::dns::{self, RecordType};
use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::dns_resource::{self, Filter, ResourceRow};
use crate::error::ApiError;
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::select_dns_resource;

const RECORDS: Operation = Operation {
    handler: "DNSResourceRecordsHandler",
    uri: "dnsresourcerecords/",
    ..Operation::READ
};
const RECORD: Operation = Operation {
    handler: "DNSResourceRecordHandler",
    uri: "dnsresourcerecords/{id}/",
    ..Operation::READ
};
const RRTYPE: Param = Param::opt(
    "rrtype",
    Kind::Text,
    "The type: CNAME, MX, NS, SRV, SSHFP or TXT.",
);
const RRDATA: Param = Param::opt("rrdata", Kind::Text, "The data, as in a zone file.");
const TTL: Param = Param::opt(
    "ttl",
    Kind::Int,
    "Seconds that it may be kept; empty for the domain's.",
);

/// `dnsresourcerecords/` and `dnsresourcerecords/{id}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List the data of names.",
        params: &[
            Param::opt("fqdn", Kind::Text, "Only this full name."),
            Param::opt(
                "domain",
                Kind::Text,
                "Only names of this domain, by name or id.",
            ),
            Param::opt("name", Kind::Text, "Only this name within its domain."),
            Param::opt("rrtype", Kind::Text, "Only data of this type."),
        ],
        run: |c| Box::pin(list(c)),
        ..RECORDS
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Add data to a name; the name is made when there is none.",
        params: &[
            Param::opt(
                "fqdn",
                Kind::Text,
                "The full name, instead of name and domain.",
            ),
            Param::opt(
                "name",
                Kind::Text,
                "The name within the domain; @ for the domain itself.",
            ),
            Param::opt("domain", Kind::Text, "The domain, by name or id."),
            RRTYPE,
            RRDATA,
            TTL,
        ],
        audit: Some("NETWORKING"),
        run: |c| Box::pin(create(c)),
        ..RECORDS
    },
    Operation {
        title: "Read data of a name.",
        run: |c| Box::pin(read(c)),
        ..RECORD
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change data of a name.",
        params: &[RRTYPE, RRDATA, TTL],
        audit: Some("NETWORKING"),
        run: |c| Box::pin(update(c)),
        ..RECORD
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete data of a name; the last of it takes the name with it.",
        success: 204,
        audit: Some("NETWORKING"),
        run: |c| Box::pin(delete(c)),
        ..RECORD
    },
];

/// Data as it is kept.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct DataRow {
    /// Database id.
    pub id: i64,
    /// The name that it belongs to.
    pub resource_id: i64,
    /// Seconds that it may be kept.
    pub ttl: Option<i64>,
    /// Type.
    pub rrtype: String,
    /// Data.
    pub rrdata: String,
    /// The name within its domain.
    pub name: String,
    /// The domain's name.
    pub domain: String,
}

/// Columns of [`DataRow`]; a `WHERE` or `ORDER BY` may follow.
#[macro_export]
#[doc(hidden)]
macro_rules! select_dns_data {
    ($rest:literal) => {
        concat!(
            "SELECT w.id, w.resource_id, w.ttl, w.rrtype, w.rrdata, r.name, d.name AS domain FROM dns_data w \
             JOIN dns_resource r ON r.id = w.resource_id JOIN domain d ON d.id = r.domain_id ",
            $rest
        )
    };
}

impl DataRow {
    /// The object of the API.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "ttl": self.ttl,
            "rrtype": self.rrtype,
            "rrdata": self.rrdata,
            "fqdn": dns::join(&self.name, &self.domain),
            "id": self.id,
            "resource_uri": format!("/MAAS/api/2.0/dnsresourcerecords/{}/", self.id),
        })
    }
}

/// The data of a name.
///
/// # Errors
/// When the database fails.
pub(crate) async fn of(tx: &mut Tx, resource: i64) -> Result<Vec<DataRow>, ApiError> {
    Ok(store::all!(
        tx,
        DataRow,
        select_dns_data!("WHERE w.resource_id = $1 ORDER BY w.id"),
        resource
    )?)
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let filter = Filter::of(&mut tx, call.args()).await?;
    let rows = store::all!(
        tx,
        DataRow,
        select_dns_data!(
            "WHERE ($1 IS NULL OR r.domain_id = $1) AND ($2 IS NULL OR r.name = $2) AND ($3 IS NULL OR w.rrtype = $3) ORDER BY w.id"
        ),
        filter.domain,
        filter.name.as_deref(),
        filter.rrtype.as_deref()
    )?;
    Ok(Answer::json(rows.iter().map(DataRow::json).collect()))
}

async fn find(tx: &mut Tx, call: &Call) -> Result<DataRow, ApiError> {
    let id = call.path_id("id", "DNSData")?;
    store::opt!(tx, DataRow, select_dns_data!("WHERE w.id = $1"), id)?
        .ok_or_else(|| ApiError::missing("DNSData"))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    Ok(Answer::json(find(&mut tx, &call).await?.json()))
}

/// The type and the data, checked for a name.
///
/// # Errors
/// 400 with the field that is wrong.
pub(crate) fn check(
    name: &str,
    rrtype: &str,
    rrdata: &str,
) -> Result<(RecordType, String), ApiError> {
    let of = RecordType::from_word(rrtype).ok_or_else(|| {
        let m = if matches!(rrtype.to_ascii_uppercase().as_str(), "A" | "AAAA") {
            "Addresses are given to a name with dnsresources.".to_owned()
        } else {
            let words: Vec<&str> = RecordType::ALL.iter().map(|t| t.word()).collect();
            format!(
                "'{}' is not one of: {}.",
                rrtype.chars().take(64).collect::<String>(),
                words.join(", ")
            )
        };
        ApiError::field("rrtype", m)
    })?;
    let data = dns::check_record(name, of, rrdata)
        .map_err(|e| ApiError::field("rrdata", format!("Invalid {} data: {e}.", of.word())))?;
    Ok((of, data))
}

/// 400 when the data cannot stand beside what is there: an alias stands alone, and what is of one type has one
/// time to live (RFC 2181 §5.2).
async fn check_beside(
    tx: &mut Tx,
    row: &ResourceRow,
    of: RecordType,
    data: &str,
    ttl: Option<i64>,
    own: Option<i64>,
) -> Result<(), ApiError> {
    let there = dns_resource::standing(tx, row.id, own).await?;
    dns::joins(there, of).map_err(|e| ApiError::field("rrtype", e.to_string()))?;
    if of == RecordType::Cname && dns_resource::is_node(tx, &row.name, row.domain_id).await? {
        return Err(ApiError::field(
            "rrtype",
            format!(
                "{} is the name of a machine; it cannot be an alias.",
                row.fqdn()
            ),
        ));
    }
    for d in self::of(tx, row.id).await? {
        if Some(d.id) == own || d.rrtype != of.word() {
            continue;
        }
        if d.rrdata == data {
            return Err(ApiError::field(
                "rrdata",
                format!("{} has this {} already.", row.fqdn(), of.word()),
            ));
        }
        if d.ttl != ttl {
            let shown = |t: Option<i64>| t.map_or_else(|| "none".to_owned(), |t| t.to_string());
            return Err(ApiError::field(
                "ttl",
                format!(
                    "TTL of {} differs from other resource records TTL of {}.",
                    shown(ttl),
                    shown(d.ttl)
                ),
            ));
        }
    }
    Ok(())
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let args = call.args();
                let (name, domain) = dns_resource::place(tx, args, None).await?;
                let (of, data) = check(&name, args.required("rrtype")?, args.required("rrdata")?)?;
                let ttl = dns_resource::ttl(args, "ttl")?;
                let there = store::opt!(
                    tx,
                    ResourceRow,
                    select_dns_resource!("WHERE r.domain_id = $1 AND r.name = $2"),
                    domain.id,
                    &name
                )?;
                let row = match there {
                    Some(row) => row,
                    None => dns_resource::insert(tx, &call, &name, &domain, None).await?,
                };
                check_beside(tx, &row, of, &data, ttl, None).await?;
                let (id,) = store::one!(
                    tx,
                    (i64,),
                    "INSERT INTO dns_data (resource_id, ttl, rrtype, rrdata, created, updated) VALUES ($1, $2, $3, $4, $5, $5) RETURNING id",
                    row.id,
                    ttl,
                    of.word(),
                    &data,
                    call.now().0
                )?;
                tx.changed("dns_resource", row.id, 0, call.now()).await?;
                let made = store::one!(tx, DataRow, select_dns_data!("WHERE w.id = $1"), id)?;
                Ok(made.json())
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut row = find(tx, &call).await?;
                let args = call.args();
                let rrtype = args.filled("rrtype").unwrap_or(&row.rrtype);
                let rrdata = args.filled("rrdata").unwrap_or(&row.rrdata);
                let (of, data) = check(&row.name, rrtype, rrdata)?;
                if args.has("ttl") {
                    row.ttl = dns_resource::ttl(args, "ttl")?;
                }
                let resource = store::one!(
                    tx,
                    ResourceRow,
                    select_dns_resource!("WHERE r.id = $1"),
                    row.resource_id
                )?;
                check_beside(tx, &resource, of, &data, row.ttl, Some(row.id)).await?;
                (row.rrtype, row.rrdata) = (of.word().to_owned(), data);
                store::exec!(
                    tx,
                    "UPDATE dns_data SET ttl = $2, rrtype = $3, rrdata = $4, updated = $5 WHERE id = $1",
                    row.id,
                    row.ttl,
                    &row.rrtype,
                    &row.rrdata,
                    call.now().0
                )?;
                tx.changed("dns_resource", row.resource_id, 0, call.now())
                    .await?;
                Ok(row.json())
            })
        })
        .await?;
    Ok(Answer::json(value))
}

async fn delete(call: Call) -> Result<Answer, ApiError> {
    call.write(|tx, call| {
        Box::pin(async move {
            let row = find(tx, &call).await?;
            store::exec!(tx, "DELETE FROM dns_data WHERE id = $1", row.id)?;
            let left = dns_resource::standing(tx, row.resource_id, None).await?;
            if left == dns::Standing::default() {
                return dns_resource::remove(tx, &call, row.resource_id).await;
            }
            tx.changed("dns_resource", row.resource_id, 0, call.now())
                .await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}
