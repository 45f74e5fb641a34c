//! Many clients allocate, deploy, release and delete at random. Whatever they did: no machine has two
//! owners, no address is given twice, whoever follows the change feed has what a fresh reader has, and when
//! all machines are gone nothing of them is left behind.

use std::collections::{BTreeMap, BTreeSet};

use metal::status::Status;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use steelyard_tests::front::{Front, difference};
use steelyard_tests::{Client, Engine};

/// Machines, and fewer addresses than that: a deployment may find none left.
const MACHINES: usize = 10;
const NETWORK: &str = "10.6.0.0/29";
const ADDRESSES: usize = 6;
const USERS: usize = 4;
const ROUNDS: usize = 6;
const STEPS: usize = 8;
/// The seed to walk by, when not those of the test.
const SEED: &str = "STEELYARD_SEED";
/// What records that something happened, not what there is.
const HISTORY: [&str; 6] = [
    "change_feed",
    "dns_state",
    "event",
    "feed_state",
    "job",
    "operation",
];

/// A machine that a user has, as he knows.
#[derive(Default)]
struct Mine {
    ids: Vec<String>,
    allocated: BTreeMap<String, i64>,
    released: BTreeMap<String, i64>,
}

/// One thing that a client does.
async fn step(client: &Client, mine: &mut Mine, choice: u32, which: usize) -> Result<(), String> {
    let chosen = (!mine.ids.is_empty()).then(|| which % mine.ids.len().max(1));
    let (what, reply) = match (choice, chosen) {
        (0..=3, _) | (_, None) => {
            let reply = client.op("machines/", "allocate", &[]).await;
            if reply.status == 200 {
                let id = reply.json()["system_id"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                *mine.allocated.entry(id.clone()).or_default() += 1;
                mine.ids.push(id);
            }
            ("allocate", reply)
        }
        (4..=6, Some(at)) => {
            let path = format!("machines/{}/", mine.ids[at]);
            ("deploy", client.op(&path, "deploy", &[]).await)
        }
        (_, Some(at)) => {
            let path = format!("machines/{}/", mine.ids[at]);
            let reply = client.op(&path, "release", &[]).await;
            if reply.status == 200 {
                let id = mine.ids.swap_remove(at);
                *mine.released.entry(id).or_default() += 1;
            }
            ("release", reply)
        }
    };
    // Nobody free, none of ours any more, not in this state, no address left.
    match reply.status {
        200 | 404 | 409 | 503 => Ok(()),
        other => Err(format!(
            "{what} was answered with {other}: {}",
            reply.text()
        )),
    }
}

/// A machine's JSON without what it shows of its domain: how many records that has changes with other
/// machines, and the feed tells of it as the domain's change.
fn own(mut machine: Value) -> Value {
    if let Some(domain) = machine["domain"].as_object_mut() {
        domain.remove("resource_record_count");
    }
    machine
}

/// The machines as the API lists them.
async fn listed(f: &Front) -> BTreeMap<String, Value> {
    let list = f.admin.get("machines/").await.good();
    let of = |m: &Value| {
        (
            m["system_id"].as_str().unwrap_or_default().to_owned(),
            own(m.clone()),
        )
    };
    list.as_array().into_iter().flatten().map(of).collect()
}

/// What must be true whenever nobody is at work.
fn check(machines: &BTreeMap<String, Value>, users: &[Mine]) -> Result<(), String> {
    let mut given = BTreeSet::new();
    for (id, m) in machines {
        let sum = |of: fn(&Mine) -> &BTreeMap<String, i64>| -> i64 {
            users
                .iter()
                .map(|u| of(u).get(id).copied().unwrap_or(0))
                .sum()
        };
        let (taken, back) = (sum(|u| &u.allocated), sum(|u| &u.released));
        let has_owner = !m["owner"].is_null();
        if taken - back != i64::from(has_owner) {
            return Err(format!(
                "{id} was allocated {taken} times and released {back} times; its owner is {}",
                m["owner"]
            ));
        }
        let is_deploying = m["status_name"] == "Deploying";
        let addresses = m["ip_addresses"].as_array().cloned().unwrap_or_default();
        if is_deploying && addresses.is_empty() || !has_owner && !addresses.is_empty() {
            return Err(format!(
                "{id} is {} with the addresses {addresses:?}",
                m["status_name"]
            ));
        }
        for address in addresses {
            if !given.insert(address.to_string()) {
                return Err(format!("{address} was given twice, also to {id}"));
            }
        }
    }
    if given.len() > ADDRESSES {
        return Err(format!("{NETWORK} has {ADDRESSES} addresses: {given:?}"));
    }
    Ok(())
}

async fn walk(f: &Front, seed: u64) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let clients = {
        let mut all = Vec::new();
        for n in 0..USERS {
            all.push(f.user(&format!("user-{seed}-{n}")).await);
        }
        all
    };
    let before = f.dump().await;
    let subnet = f
        .admin
        .create("subnets/", &[("cidr", NETWORK)])
        .await
        .good();
    let subnet = subnet["id"].to_string();
    for n in 0..MACHINES {
        let machine = f.machine(&[("hostname", &format!("m{seed}-{n}"))]).await;
        let id = machine["system_id"].as_str().unwrap_or_default().to_owned();
        f.equip(&id).await;
        let port = format!(
            "nodes/{id}/interfaces/{}/",
            machine["interface_set"][0]["id"]
        );
        let link = [
            ("mode", "auto"),
            ("subnet", subnet.as_str()),
            ("force", "1"),
        ];
        drop(f.admin.op(&port, "link_subnet", &link).await.good());
        f.put_into(&id, Status::Ready, None).await;
    }
    let at = {
        let mut tx = f.region.db.read().await.map_err(|e| e.to_string())?;
        tx.feed_position().await.map_err(|e| e.to_string())?
    };
    let mut feed = f.region.db.feed_reader(at);
    let mut followed = listed(f).await;
    let mut users: Vec<Mine> = (0..USERS).map(|_| Mine::default()).collect();
    for round in 0..ROUNDS {
        let seeds: Vec<u64> = (0..USERS).map(|_| random.random()).collect();
        let each = clients.iter().zip(&mut users).zip(seeds);
        let work = each.map(|((client, mine), seed)| {
            let mut random = StdRng::seed_from_u64(seed);
            async move {
                for _ in 0..STEPS {
                    step(
                        client,
                        mine,
                        random.random_range(0..10),
                        random.random_range(0..100),
                    )
                    .await?;
                }
                Ok::<(), String>(())
            }
        });
        let victim = followed
            .keys()
            .nth(random.random_range(0..MACHINES))
            .cloned();
        let delete = async {
            // Twice in a walk, whoever has it.
            if let Some(id) = victim.filter(|_| round % 3 == 1) {
                let reply = f.admin.delete(&format!("machines/{id}/")).await;
                if reply.status != 204 {
                    return Err(format!(
                        "delete was answered with {}: {}",
                        reply.status,
                        reply.text()
                    ));
                }
            }
            Ok(())
        };
        let (done, deleted) = tokio::join!(futures::future::join_all(work), delete);
        done.into_iter().collect::<Result<Vec<()>, String>>()?;
        deleted?;
        let now = listed(f).await;
        check(&now, &users)?;
        follow(f, &mut feed, &mut followed).await?;
        if followed != now {
            let ids: BTreeSet<&String> = followed.keys().chain(now.keys()).collect();
            let differ: Vec<String> = ids
                .into_iter()
                .filter_map(|id| differing(id, followed.get(id), now.get(id)))
                .collect();
            return Err(format!("the feed did not tell of {differ:?}"));
        }
    }
    let taken: i64 = users.iter().flat_map(|u| u.allocated.values()).sum();
    let back: i64 = users.iter().flat_map(|u| u.released.values()).sum();
    if taken <= i64::try_from(MACHINES).unwrap_or_default() || back == 0 {
        return Err(format!(
            "too little happened: {taken} allocations, {back} releases"
        ));
    }
    for id in listed(f).await.keys() {
        drop(f.admin.delete(&format!("machines/{id}/")).await.expect(204));
    }
    drop(
        f.admin
            .delete(&format!("subnets/{subnet}/"))
            .await
            .expect(204),
    );
    let left = difference(&kept(before), &kept(f.dump().await));
    if left.is_empty() {
        Ok(())
    } else {
        Err(format!("left behind:\n{left}"))
    }
}

/// In which fields two readings of a machine differ.
fn differing(id: &str, old: Option<&Value>, new: Option<&Value>) -> Option<String> {
    if old == new {
        return None;
    }
    let (Some(old), Some(new)) = (old, new) else {
        return Some(format!("{id}: it is there or not"));
    };
    let fields = new.as_object().into_iter().flatten();
    let changed: Vec<String> = fields
        .filter(|(name, value)| old.get(name.as_str()) != Some(*value))
        .map(|(name, value)| format!("{name}: {} became {value}", old[name.as_str()]))
        .collect();
    Some(format!("{id}: {}", changed.join(", ")))
}

fn kept(mut dump: BTreeMap<String, Vec<String>>) -> BTreeMap<String, Vec<String>> {
    dump.retain(|table, rows| !HISTORY.contains(&table.as_str()) && !rows.is_empty());
    dump
}

/// Reads the feed to its end and then, again, what it names.
async fn follow(
    f: &Front,
    feed: &mut store::feed::FeedReader,
    known: &mut BTreeMap<String, Value>,
) -> Result<(), String> {
    // A change of ours, so that the end is known.
    let end = f
        .admin
        .create(
            "tags/",
            &[("name", &format!("end-{}", steelyard_tests::front::unique()))],
        )
        .await
        .good();
    let name = end["name"].as_str().unwrap_or_default().to_owned();
    drop(f.admin.delete(&format!("tags/{name}/")).await.expect(204));
    let mut changed = BTreeSet::new();
    let mut tags = 0;
    while tags < 2 {
        for change in feed.next().await.map_err(|e| e.to_string())? {
            match change.noun.as_str() {
                "node" => {
                    changed.insert(change.object);
                }
                "tag" => tags += 1,
                _ => {}
            }
        }
    }
    for id in changed {
        let reply = f.admin.get(&format!("machines/{id}/")).await;
        match reply.status {
            200 => known.insert(id, own(reply.json())),
            404 => known.remove(&id),
            other => return Err(format!("{id} was answered with {other}")),
        };
    }
    Ok(())
}

async fn walks(engine: Engine) {
    let given = std::env::var(SEED).ok().and_then(|s| s.parse().ok());
    let seeds: Vec<u64> = given.map_or_else(|| (1..=3).collect(), |seed| vec![seed]);
    for seed in seeds {
        let f = Front::start(engine).await;
        if let Err(wrong) = walk(&f, seed).await {
            panic!("{SEED}={seed}: {wrong}");
        }
        f.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_random_leave_everything_right_on_sqlite() {
    walks(Engine::Sqlite).await;
}

#[cfg(feature = "peers")]
#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_random_leave_everything_right_on_postgres() {
    walks(Engine::Postgres).await;
}
