//! Adding machines: by an administrator, and by themselves.

use std::collections::BTreeMap;

use link::message::Parameters;
use metal::status::Status;
use metal::{MacAddr, SystemId};
use rand::Rng as _;
use serde_json::Value;
use store::Tx;

use crate::answer::Answer;
use crate::args::Args;
use crate::call::Call;
use crate::error::ApiError;
use crate::event::{self, Kind};
use crate::lifecycle::{self, Cause, Commissioning};
use crate::machine::read;
use crate::node::{NodeRow, View, row, view};
use crate::{image, power, power_type, setting};

/// Most MAC addresses of one machine.
pub const MAX_MACS: usize = 256;

/// A machine that is to be made, checked.
#[derive(Clone, Debug)]
pub struct NewMachine {
    system_id: SystemId,
    hostname: Option<String>,
    spare_hostnames: Vec<String>,
    description: String,
    architecture: String,
    min_hwe_kernel: String,
    macs: Vec<MacAddr>,
    domain: Option<String>,
    zone: Option<String>,
    pool: Option<String>,
    power_type: String,
    power_parameters: Parameters,
    is_dpu: bool,
    deployed: bool,
}

/// Checks a host name (RFC 1123 §2.1, and at most 63 characters).
///
/// # Errors
/// 400 with what is wrong.
pub fn check_hostname(name: &str) -> Result<String, ApiError> {
    let name = name.to_ascii_lowercase();
    let fits = !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fits {
        Ok(name)
    } else {
        Err(ApiError::field(
            "hostname",
            "Use letters, digits and hyphens only, no hyphen at either end, at most 63 of them.",
        ))
    }
}

/// Words of the host names that are made up: an adjective and a noun.
const FIRST: [&str; 48] = [
    "able", "amber", "apt", "bold", "brave", "brisk", "calm", "clear", "crisp", "deft", "eager",
    "early", "even", "fair", "fast", "fine", "firm", "free", "fresh", "glad", "grand", "great",
    "keen", "kind", "late", "light", "live", "lucid", "merry", "neat", "noble", "pale", "plain",
    "prime", "proud", "quick", "quiet", "rapid", "ready", "royal", "sharp", "sleek", "smart",
    "sound", "still", "swift", "true", "warm",
];
const SECOND: [&str; 48] = [
    "adder", "badger", "bison", "bream", "civet", "cobra", "crane", "dingo", "eagle", "egret",
    "ermine", "falcon", "finch", "gecko", "goose", "grouse", "heron", "hound", "ibis", "jackal",
    "koala", "lark", "lemur", "llama", "lynx", "mink", "moose", "newt", "otter", "owl", "panda",
    "perch", "pike", "quail", "raven", "robin", "sable", "seal", "shrew", "skink", "stoat",
    "stork", "swan", "tapir", "tern", "trout", "viper", "wolf",
];

/// A host name of an adjective and an animal.
#[must_use]
pub fn made_up_hostname() -> String {
    let mut rng = rand::rng();
    format!(
        "{}-{}",
        FIRST[rng.random_range(0..FIRST.len())],
        SECOND[rng.random_range(0..SECOND.len())]
    )
}

/// Reads power parameters: one by one (`power_parameters_KEY`) and as a JSON object.
///
/// # Errors
/// 400 when the JSON cannot be read.
pub fn power_parameters(args: &Args) -> Result<Option<Parameters>, ApiError> {
    let mut out: BTreeMap<String, Value> = BTreeMap::new();
    let mut given = false;
    if let Some(text) = args.filled("power_parameters") {
        given = true;
        let Ok(Value::Object(map)) = serde_json::from_str::<Value>(text) else {
            return Err(ApiError::field("power_parameters", "Enter a JSON object."));
        };
        out.extend(map);
    }
    for (key, value) in args.with_prefix("power_parameters_") {
        if key != "skip_check" {
            given = true;
            out.insert(key.to_owned(), value.into());
        }
    }
    Ok(given.then_some(Parameters(out)))
}

/// Checks a power type and its parameters.
///
/// # Errors
/// 400 naming what is missing.
pub fn check_power(power_type: &str, parameters: &Parameters, skip: bool) -> Result<(), ApiError> {
    if power_type.is_empty() {
        return Ok(());
    }
    let Some(driver) = power_type::find(power_type) else {
        return Err(ApiError::field(
            "power_type",
            format!("Select a valid choice. {power_type} is not one of the available choices."),
        ));
    };
    if skip {
        return Ok(());
    }
    let missing: Vec<(String, Vec<String>)> = driver
        .fields
        .iter()
        .filter(|f| f.is_needed())
        .filter(|f| {
            parameters
                .0
                .get(&f.name)
                .is_none_or(|v| v.as_str().is_some_and(str::is_empty))
        })
        .map(|f| (f.name.clone(), vec!["This field is required.".to_owned()]))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ApiError::Fields(missing))
    }
}

impl NewMachine {
    /// Checks the parameters of a request.
    ///
    /// # Errors
    /// 400 with every field that is wrong.
    pub fn from_args(args: &Args) -> Result<Self, ApiError> {
        let mut macs = Vec::new();
        for text in args.list("mac_addresses") {
            let mac: MacAddr = text.parse().map_err(|_| {
                ApiError::field(
                    "mac_addresses",
                    format!(
                        "One or more MAC addresses is invalid. ('{text}' is not a MAC address.)"
                    ),
                )
            })?;
            // An interface that some BMCs show to the host: the same on every machine.
            if mac.0 != [2, 0, 0, 0, 0, 2] && !macs.contains(&mac) {
                macs.push(mac);
            }
        }
        if macs.is_empty() && args.filled("power_type") != Some("ipmi") {
            return Err(ApiError::field("mac_addresses", "This field is required."));
        }
        if macs.len() > MAX_MACS {
            return Err(ApiError::field(
                "mac_addresses",
                format!("A machine may have at most {MAX_MACS} addresses."),
            ));
        }
        let mut architecture = args.required("architecture")?.to_ascii_lowercase();
        if !architecture.contains('/') {
            architecture = format!(
                "{architecture}/{}",
                args.filled("subarchitecture").unwrap_or("generic")
            );
        }
        let known = architecture.split_once('/').is_some_and(|(a, s)| {
            matches!(
                a,
                "amd64" | "i386" | "arm64" | "armhf" | "ppc64el" | "s390x"
            ) && !s.is_empty()
                && s.len() <= 64
        });
        if !known {
            return Err(ApiError::field(
                "architecture",
                format!("'{architecture}' is not a valid architecture."),
            ));
        }
        let power_type = args.filled("power_type").unwrap_or("").to_owned();
        let power_parameters = power_parameters(args)?.unwrap_or_default();
        check_power(
            &power_type,
            &power_parameters,
            args.bool("power_parameters_skip_check")?.unwrap_or(false),
        )?;
        Ok(Self {
            system_id: SystemId::from_random(rand::rng().random()),
            hostname: args
                .filled("hostname")
                .map(|h| check_hostname(h.split('.').next().unwrap_or(h)))
                .transpose()?,
            spare_hostnames: (0..20).map(|_| made_up_hostname()).collect(),
            description: args.text("description").unwrap_or("").to_owned(),
            architecture,
            min_hwe_kernel: args.text("min_hwe_kernel").unwrap_or("").to_owned(),
            macs,
            domain: args.filled("domain").map(str::to_owned),
            zone: args.filled("zone").map(str::to_owned),
            pool: args.filled("pool").map(str::to_owned),
            power_type,
            power_parameters,
            is_dpu: args.bool("is_dpu")?.unwrap_or(false),
            deployed: args.bool("deployed")?.unwrap_or(false),
        })
    }

    /// Makes the machine: its row, its interfaces, its power parameters.
    ///
    /// # Errors
    /// 400 when a name or an address is taken.
    pub async fn insert(
        &self,
        tx: &mut Tx,
        call: &Call,
        enlisting: bool,
    ) -> Result<NodeRow, ApiError> {
        let now = call.now();
        let domain = domain_id(tx, self.domain.as_deref()).await?;
        let zone = place_id(tx, "zone", self.zone.as_deref()).await?;
        let pool = place_id(tx, "pool", self.pool.as_deref()).await?;
        for mac in &self.macs {
            if let Some(owner) = row::by_mac(tx, &mac.to_string()).await? {
                return Err(ApiError::field(
                    "mac_addresses",
                    format!("MAC address {mac} already in use on {}.", owner.fqdn()),
                ));
            }
        }
        let hostname = match &self.hostname {
            Some(h) => {
                let taken = store::opt!(
                    tx,
                    (i64,),
                    "SELECT id FROM node WHERE hostname = $1 AND domain_id = $2",
                    h,
                    domain
                )?;
                if taken.is_some() {
                    return Err(ApiError::field(
                        "hostname",
                        "Node with this Hostname already exists.",
                    ));
                }
                h.clone()
            }
            None => self.free_hostname(tx, domain).await?,
        };
        let status = if self.deployed {
            Status::Deployed
        } else {
            Status::New
        };
        let (id,) = store::one!(
            tx,
            (i64,),
            "INSERT INTO node (system_id, node_type, hostname, description, domain_id, zone_id, pool_id, owner_id, status, previous_status, \
             status_since, architecture, min_hwe_kernel, power_type, power_state, enlisting, is_dpu, created, updated) \
             VALUES ($1, 0, $2, $3, $4, $5, $6, $7, $8, $8, $9, $10, $11, $12, 'unknown', $13, $14, $9, $9) RETURNING id",
            &self.system_id.0,
            &hostname,
            &self.description,
            domain,
            zone,
            pool,
            self.deployed.then(|| call.actor().user_id()),
            status.code(),
            now.0,
            &self.architecture,
            &self.min_hwe_kernel,
            &self.power_type,
            enlisting,
            self.is_dpu
        )?;
        power::set_parameters(
            tx,
            call.region(),
            id,
            &self.system_id.0,
            &self.power_parameters,
        )
        .await?;
        add_interfaces(tx, id, &self.macs, call).await?;
        let node = row::by_id(tx, id).await?;
        event::add(
            tx,
            Kind::New,
            Some(node.about()),
            call.actor().name(),
            "",
            now,
        )
        .await?;
        node.touch(tx, now).await?;
        row::by_id(tx, id).await
    }

    async fn free_hostname(&self, tx: &mut Tx, domain: i64) -> Result<String, ApiError> {
        for h in &self.spare_hostnames {
            let taken = store::opt!(
                tx,
                (i64,),
                "SELECT id FROM node WHERE hostname = $1 AND domain_id = $2",
                h,
                domain
            )?;
            if taken.is_none() {
                return Ok(h.clone());
            }
        }
        // All words taken: the system id makes it unique.
        Ok(format!("{}-{}", self.spare_hostnames[0], self.system_id))
    }
}

/// Adds physical interfaces `eth0`, `eth1`, … on the VLAN that the request came from, where it is known.
///
/// # Errors
/// When the database fails.
pub async fn add_interfaces(
    tx: &mut Tx,
    node: i64,
    macs: &[MacAddr],
    call: &Call,
) -> Result<(), ApiError> {
    let vlan = vlan_of_client(tx, call).await?;
    let (have,) = store::one!(
        tx,
        (i64,),
        "SELECT COUNT(*) FROM interface WHERE node_id = $1",
        node
    )?;
    for (mac, n) in macs.iter().zip(have..) {
        store::exec!(
            tx,
            "INSERT INTO interface (node_id, name, type, mac, vlan_id, created, updated) VALUES ($1, $2, 'physical', $3, $4, $5, $5)",
            node,
            format!("eth{n}"),
            mac.to_string(),
            vlan,
            call.now().0
        )?;
    }
    store::exec!(
        tx,
        "UPDATE node SET boot_interface_id = (SELECT MIN(i.id) FROM interface i WHERE i.node_id = $1) WHERE id = $1 AND boot_interface_id IS NULL",
        node
    )?;
    Ok(())
}

async fn vlan_of_client(tx: &mut Tx, call: &Call) -> Result<Option<i64>, ApiError> {
    let subnets = crate::subnet::all(tx).await?;
    Ok(subnets
        .values()
        .find(|s| s.contains(call.origin().ip))
        .map(|s| s.vlan_id))
}

/// A domain by name or id; the default one when none is named.
///
/// # Errors
/// 400 when there is none.
pub async fn domain_id(tx: &mut Tx, name: Option<&str>) -> Result<i64, ApiError> {
    let found = match name {
        None => store::opt!(tx, (i64,), "SELECT id FROM domain WHERE is_default")?,
        Some(n) => match n.parse::<i64>() {
            Ok(id) => store::opt!(tx, (i64,), "SELECT id FROM domain WHERE id = $1", id)?,
            Err(_) => store::opt!(tx, (i64,), "SELECT id FROM domain WHERE name = $1", n)?,
        },
    };
    found
        .map(|r| r.0)
        .ok_or_else(|| ApiError::field("domain", "Unable to find the domain with that name or id."))
}

/// A zone or pool by name; `default` when none is named.
///
/// # Errors
/// 400 when there is none.
pub async fn place_id(tx: &mut Tx, what: &str, name: Option<&str>) -> Result<i64, ApiError> {
    let name = name.unwrap_or("default");
    let found = match what {
        "zone" => store::opt!(tx, (i64,), "SELECT id FROM zone WHERE name = $1", name)?,
        _ => store::opt!(
            tx,
            (i64,),
            "SELECT id FROM resource_pool WHERE name = $1",
            name
        )?,
    };
    found.map(|r| r.0).ok_or_else(|| {
        ApiError::field(
            what,
            "Select a valid choice. That choice is not one of the available choices.",
        )
    })
}

/// The switches of commissioning in a request.
///
/// # Errors
/// 400 when one is of the wrong type.
pub fn commissioning_of(args: &Args) -> Result<Commissioning, ApiError> {
    let parameters = match args.filled("parameters") {
        None => serde_json::Map::new(),
        Some(text) => match serde_json::from_str(text) {
            Ok(Value::Object(m)) => m,
            _ => return Err(ApiError::field("parameters", "Enter a JSON object.")),
        },
    };
    Ok(Commissioning {
        enable_ssh: args.bool("enable_ssh")?.unwrap_or(false),
        skip_bmc_config: args.bool("skip_bmc_config")?.unwrap_or(false),
        skip_networking: args.bool("skip_networking")?.unwrap_or(false),
        skip_storage: args.bool("skip_storage")?.unwrap_or(false),
        commissioning_scripts: args.list("commissioning_scripts"),
        testing_scripts: args.list("testing_scripts"),
        parameters,
    })
}

pub(super) async fn create(call: Call) -> Result<Answer, ApiError> {
    let new = NewMachine::from_args(call.args())?;
    let how = commissioning_of(call.args())?;
    let commission = call.args().bool("commission")?;
    let value = call
        .write(move |tx, call| {
            let (new, how) = (new.clone(), how.clone());
            Box::pin(async move {
                image::check_architecture(tx, &new.architecture).await?;
                let mut node = new.insert(tx, &call, false).await?;
                if !new.deployed && commission.unwrap_or(!new.power_type.is_empty()) {
                    let cause = Cause {
                        by: call.actor().name(),
                        why: "",
                        at: call.now(),
                    };
                    lifecycle::start_commissioning(
                        tx,
                        &mut node,
                        &how,
                        Some(call.actor().user_id()),
                        cause,
                    )
                    .await?;
                }
                read::fresh(tx, &call, node.id).await
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// A machine that nobody knows presents itself. One that is known by its BMC or by a MAC address, and is
/// New or being commissioned, is updated and not made a second time.
pub(super) async fn enlist(call: Call) -> Result<Answer, ApiError> {
    let new = NewMachine::from_args(call.args())?;
    let value = call
        .write(move |tx, call| {
            let new = new.clone();
            Box::pin(async move {
                let commission = setting::flag(tx, "enlist_commissioning").await?;
                let node = match known(tx, &call, &new).await? {
                    Some(node) => refresh(tx, &call, &node, &new).await?,
                    None => new.insert(tx, &call, commission).await?,
                };
                if let Some(mac) = call.origin().mac
                    && new.macs.contains(&mac)
                {
                    note_boot(tx, &call, &node, mac).await?;
                }
                let nodes = [node];
                let v = View::load(tx, &nodes, call.now()).await?;
                Ok(view::anonymous_json(&v, &nodes[0]))
            })
        })
        .await?;
    adopt_boots(&call, &value).await;
    Ok(Answer::json(value))
}

/// The boots of the machine's addresses are its own from now on.
async fn adopt_boots(call: &Call, machine: &Value) {
    let Some(system_id) = machine["system_id"].as_str() else {
        return;
    };
    for mac in call
        .args()
        .list("mac_addresses")
        .iter()
        .filter_map(|m| m.parse::<MacAddr>().ok())
    {
        if let Err(e) = call
            .region()
            .timeline
            .adopt(mac, &SystemId::from(system_id))
            .await
        {
            tracing::warn!(error = %e, system_id, "the boots before the enlistment stay without their machine");
        }
    }
}

async fn known(tx: &mut Tx, call: &Call, new: &NewMachine) -> Result<Option<NodeRow>, ApiError> {
    let open = |n: &NodeRow| matches!(n.status(), Ok(Status::New | Status::Commissioning));
    if new.power_type == "ipmi"
        && let Some(address) = new.power_parameters.0.get("power_address")
    {
        let candidates = store::all!(
            tx,
            (String,),
            "SELECT system_id FROM node WHERE node_type = 0 AND power_type = 'ipmi' AND status IN (0, 1)"
        )?;
        for (system_id,) in candidates {
            let Some(node) = row::find(tx, &system_id).await? else {
                continue;
            };
            if power::parameters(tx, call.region(), &node)
                .await?
                .0
                .get("power_address")
                == Some(address)
            {
                return Ok(Some(node));
            }
        }
    }
    for mac in &new.macs {
        if let Some(node) = row::by_mac(tx, &mac.to_string()).await?
            && open(&node)
        {
            return Ok(Some(node));
        }
    }
    Ok(None)
}

async fn refresh(
    tx: &mut Tx,
    call: &Call,
    node: &NodeRow,
    new: &NewMachine,
) -> Result<NodeRow, ApiError> {
    let mut missing = Vec::new();
    for mac in &new.macs {
        match row::by_mac(tx, &mac.to_string()).await? {
            None => missing.push(*mac),
            Some(owner) if owner.id == node.id => {}
            Some(owner) => {
                return Err(ApiError::field(
                    "mac_addresses",
                    format!("MAC address {mac} already in use on {}.", owner.fqdn()),
                ));
            }
        }
    }
    add_interfaces(tx, node.id, &missing, call).await?;
    if !new.power_type.is_empty() {
        store::exec!(
            tx,
            "UPDATE node SET power_type = $2 WHERE id = $1",
            node.id,
            &new.power_type
        )?;
        power::set_parameters(
            tx,
            call.region(),
            node.id,
            &node.system_id,
            &new.power_parameters,
        )
        .await?;
    }
    store::exec!(
        tx,
        "UPDATE node SET architecture = $2 WHERE id = $1",
        node.id,
        &new.architecture
    )?;
    node.touch(tx, call.now()).await?;
    row::by_id(tx, node.id).await
}

/// The interface that it booted from, and the address that it has: its rack may forget whose it is.
async fn note_boot(tx: &mut Tx, call: &Call, node: &NodeRow, mac: MacAddr) -> Result<(), ApiError> {
    store::exec!(
        tx,
        "UPDATE node SET boot_interface_id = (SELECT i.id FROM interface i WHERE i.node_id = $1 AND i.mac = $2), boot_client_ip = $3, \
         boot_client_at = $4 WHERE id = $1",
        node.id,
        mac.to_string(),
        call.origin().ip.to_string(),
        call.now().0
    )?;
    Ok(())
}
