//! `steelyard import machines FILE`: many machines from a list. A machine is known again by its MAC
//! addresses, so a list can be imported again after it was changed, or after half of it failed.

mod csv;
mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::process::ExitCode;

use anyhow::Context as _;
use metal::MacAddr;
use reqwest::Method;
use serde_json::Value;

use crate::client::api::{Answer, Api, Body, Request};
use crate::out;
use crate::server::ServerArgs;
use machine::{ARCHITECTURE, Entry, MAX_MACHINES, Machine};

/// Bytes of a list at most.
const MAX_FILE: u64 = 64 << 20;
/// Machines whose power parameters are asked for at once.
const BATCH: usize = 100;

/// `steelyard import`.
#[derive(clap::Args)]
pub struct ImportArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Machines from a list in CSV or JSON: name, macs, architecture, power, pool, tags
    Machines(MachinesArgs),
}

#[derive(clap::Args)]
struct MachinesArgs {
    /// The list, or - to read it from standard input
    file: String,
    /// How it is written [default: by its name and its first character]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Say what would be done and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Commission the machines that are added
    #[arg(long)]
    commission: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Comma-separated values; the first row names the columns
    Csv,
    /// An array of objects
    Json,
}

/// Runs it. The exit status is 1 when a machine of the list was refused.
///
/// # Errors
/// When the list cannot be read or the server cannot be asked.
pub async fn run(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let What::Machines(args) = args.what;
    let text = read(&args.file)?;
    let format = args.format.unwrap_or_else(|| {
        let is_json = args.file.ends_with(".json") || text.trim_start().starts_with(['[', '{']);
        if is_json { Format::Json } else { Format::Csv }
    });
    let list = match format {
        Format::Csv => machine::from_csv(&text),
        Format::Json => machine::from_json(&text),
    }
    .map_err(|e| anyhow::anyhow!("{}: {e}", args.file))?;
    if list.len() > MAX_MACHINES {
        anyhow::bail!("{} machines; a list may have {MAX_MACHINES}", list.len());
    }
    let api = args.server.connect().await?;
    let mut importer = Importer::new(&api, args.dry_run, args.commission, &list).await?;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, machine) in list {
        let (word, said) = match importer.one(machine).await {
            Ok((word, said)) => (word, said),
            Err(e) => ("failed", format!("failed: {e:#}")),
        };
        *counts.entry(word).or_default() += 1;
        out::line(&format!("{at}: {}", out::printable(&said)))?;
    }
    let all: Vec<String> = counts.iter().map(|(w, n)| format!("{n} {w}")).collect();
    let would = if args.dry_run {
        " (nothing was done)"
    } else {
        ""
    };
    let summary = if all.is_empty() {
        "no machines".to_owned()
    } else {
        all.join(", ")
    };
    out::complain(&format!("{summary}{would}"));
    Ok(if counts.contains_key("failed") {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn read(file: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let source: Box<dyn std::io::Read> = if file == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).with_context(|| format!("{file} cannot be read"))?)
    };
    source
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("{file} cannot be read as text"))?;
    if text.len() as u64 > MAX_FILE {
        anyhow::bail!("{file} has more than {MAX_FILE} bytes");
    }
    Ok(text)
}

/// What the server has, as far as the list is concerned.
struct Importer<'a> {
    api: &'a Api,
    dry_run: bool,
    commission: bool,
    by_mac: BTreeMap<MacAddr, String>,
    machines: BTreeMap<String, Value>,
    power: BTreeMap<String, Value>,
    tags: BTreeSet<String>,
    /// MAC addresses and names of this list so far.
    seen: BTreeSet<String>,
}

type Pairs = Vec<(String, String)>;

impl<'a> Importer<'a> {
    async fn new(
        api: &'a Api,
        dry_run: bool,
        commission: bool,
        list: &[Entry],
    ) -> anyhow::Result<Self> {
        let mut this = Self {
            api,
            dry_run,
            commission,
            by_mac: BTreeMap::new(),
            machines: BTreeMap::new(),
            power: BTreeMap::new(),
            tags: BTreeSet::new(),
            seen: BTreeSet::new(),
        };
        for m in array(this.get("machines/").await?)? {
            let id = text(&m, "system_id").to_owned();
            for i in m["interface_set"].as_array().into_iter().flatten() {
                if let Ok(mac) = text(i, "mac_address").parse() {
                    this.by_mac.insert(mac, id.clone());
                }
            }
            this.machines.insert(id, m);
        }
        for t in array(this.get("tags/").await?)? {
            this.tags.insert(text(&t, "name").to_owned());
        }
        let known: BTreeSet<&String> = list
            .iter()
            .filter_map(|(_, m)| m.as_ref().ok())
            .filter(|m| m.power_type.is_some())
            .flat_map(|m| &m.macs)
            .filter_map(|mac| this.by_mac.get(mac))
            .collect();
        let mut power = BTreeMap::new();
        for ids in known.into_iter().collect::<Vec<_>>().chunks(BATCH) {
            let ids: String = ids.iter().map(|id| format!("&id={id}")).collect();
            let answer = this
                .get(&format!("machines/?op=power_parameters{ids}"))
                .await?;
            if let Value::Object(all) = answer {
                power.extend(all);
            }
        }
        this.power = power;
        Ok(this)
    }

    async fn get(&self, target: &str) -> anyhow::Result<Value> {
        let target = self.api.resolve(target)?;
        self.api.get(target.as_str()).await?.json()
    }

    async fn send(&self, method: Method, target: &str, data: &Pairs) -> anyhow::Result<Answer> {
        let form = data
            .iter()
            .map(|(k, v)| (k.clone(), v.clone().into_bytes(), false))
            .collect();
        let answer = self
            .api
            .send(Request {
                method,
                target: self.api.resolve(target)?.to_string(),
                body: Body::Form(form),
            })
            .await?;
        if !answer.is_success() {
            anyhow::bail!("{}", refusal(&answer));
        }
        Ok(answer)
    }

    /// One machine: a word for the count, and what to say.
    async fn one(
        &mut self,
        machine: Result<Machine, String>,
    ) -> anyhow::Result<(&'static str, String)> {
        let m = machine.map_err(anyhow::Error::msg)?;
        let named: Vec<String> = m
            .macs
            .iter()
            .map(ToString::to_string)
            .chain(m.name.clone())
            .collect();
        if let Some(twice) = named.iter().find(|n| self.seen.contains(*n)) {
            anyhow::bail!("{twice} stands in the list twice");
        }
        self.seen.extend(named);
        let ids: BTreeSet<String> = m
            .macs
            .iter()
            .filter_map(|x| self.by_mac.get(x).cloned())
            .collect();
        let mut ids = ids.into_iter();
        match (ids.next(), ids.next()) {
            (None, _) => self.add(&m).await,
            (Some(id), None) => self.change(&id, &m).await,
            (Some(_), Some(_)) => {
                anyhow::bail!("its MAC addresses belong to different machines of the server")
            }
        }
    }

    async fn add(&mut self, m: &Machine) -> anyhow::Result<(&'static str, String)> {
        let taken = |x: &&Value| Some(text(x, "hostname")) == m.name.as_deref();
        if let Some(other) = self.machines.values().find(taken) {
            anyhow::bail!(
                "{} is the name of another machine ({})",
                text(other, "hostname"),
                text(other, "system_id")
            );
        }
        let what = m.name.clone().unwrap_or_else(|| m.macs[0].to_string());
        if self.dry_run {
            return Ok(("added", format!("{what} would be added")));
        }
        let mut data: Pairs = m
            .macs
            .iter()
            .map(|x| ("mac_addresses".to_owned(), x.to_string()))
            .collect();
        let mut put = |key: &str, value: &str| data.push((key.to_owned(), value.to_owned()));
        put(
            "architecture",
            m.architecture.as_deref().unwrap_or(ARCHITECTURE),
        );
        put("commission", if self.commission { "true" } else { "false" });
        for (key, value) in [
            ("hostname", &m.name),
            ("pool", &m.pool),
            ("zone", &m.zone),
            ("domain", &m.domain),
        ] {
            if let Some(value) = value {
                put(key, value);
            }
        }
        data.extend(power(m));
        let made = self.send(Method::POST, "machines/", &data).await?.json()?;
        let id = text(&made, "system_id").to_owned();
        self.tag(&id, &m.tags)
            .await
            .with_context(|| format!("{id} was added, but its tags were refused"))?;
        Ok((
            "added",
            format!("{} ({id}) was added", text(&made, "hostname")),
        ))
    }

    async fn change(&mut self, id: &str, m: &Machine) -> anyhow::Result<(&'static str, String)> {
        let there = self.machines.get(id).cloned().unwrap_or_default();
        let name_there = text(&there, "hostname").to_owned();
        let mut data = Pairs::new();
        let fields = [
            ("hostname", &m.name, name_there.as_str()),
            (
                "architecture",
                &m.architecture,
                text(&there, "architecture"),
            ),
            ("pool", &m.pool, text(&there["pool"], "name")),
            ("zone", &m.zone, text(&there["zone"], "name")),
            ("domain", &m.domain, text(&there["domain"], "name")),
        ];
        for (key, wanted, is) in fields {
            if let Some(w) = wanted.as_deref().filter(|w| *w != is) {
                data.push((key.to_owned(), w.to_owned()));
            }
        }
        let set = self.power.get(id);
        let same_power = |(k, v): (&String, &String)| {
            let is = set.map_or(&Value::Null, |s| &s[k.as_str()]);
            is.as_str().map_or_else(|| is.to_string(), str::to_owned) == *v
        };
        let type_differs = m
            .power_type
            .as_deref()
            .is_some_and(|t| t != text(&there, "power_type"));
        if type_differs || !m.power.iter().all(same_power) {
            data.extend(power(m));
        }
        let new_macs: Vec<&MacAddr> = m
            .macs
            .iter()
            .filter(|x| !self.by_mac.contains_key(x))
            .collect();
        let has: Vec<&str> = there["tag_names"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let tags: Vec<String> = m
            .tags
            .iter()
            .filter(|t| !has.contains(&t.as_str()))
            .cloned()
            .collect();
        // Names only: among the values are passwords.
        let mut names: Vec<&str> = data.iter().map(|(k, _)| k.as_str()).collect();
        if !new_macs.is_empty() {
            names.push("mac_addresses");
        }
        if !tags.is_empty() {
            names.push("tags");
        }
        let names = names.join(", ");
        if names.is_empty() {
            return Ok((
                "unchanged",
                format!("{name_there} ({id}) is as it should be"),
            ));
        }
        if self.dry_run {
            return Ok((
                "changed",
                format!("{name_there} ({id}) would be changed: {names}"),
            ));
        }
        if !data.is_empty() {
            self.send(Method::PUT, &format!("machines/{id}/"), &data)
                .await?;
        }
        for mac in new_macs {
            let data = vec![("mac_address".to_owned(), mac.to_string())];
            let target = format!("nodes/{id}/interfaces/?op=create_physical");
            self.send(Method::POST, &target, &data)
                .await
                .with_context(|| format!("{mac} was refused"))?;
        }
        self.tag(id, &tags).await?;
        Ok((
            "changed",
            format!("{name_there} ({id}) was changed: {names}"),
        ))
    }

    async fn tag(&mut self, id: &str, tags: &[String]) -> anyhow::Result<()> {
        for tag in tags {
            if !self.tags.contains(tag) {
                let data = vec![("name".to_owned(), tag.clone())];
                self.send(Method::POST, "tags/", &data)
                    .await
                    .with_context(|| format!("the tag {tag} was refused"))?;
                self.tags.insert(tag.clone());
            }
            let data = vec![("add".to_owned(), id.to_owned())];
            // A name that the server took as a tag's needs no escape in a path.
            self.send(Method::POST, &format!("tags/{tag}/?op=update_nodes"), &data)
                .await
                .with_context(|| format!("the tag {tag} was refused"))?;
        }
        Ok(())
    }
}

fn power(m: &Machine) -> Pairs {
    let kind = m
        .power_type
        .iter()
        .map(|t| ("power_type".to_owned(), t.clone()));
    let parameters = m
        .power
        .iter()
        .map(|(k, v)| (format!("power_parameters_{k}"), v.clone()));
    kind.chain(parameters).collect()
}

fn text<'v>(v: &'v Value, key: &str) -> &'v str {
    v[key].as_str().unwrap_or("")
}

fn array(value: Value) -> anyhow::Result<Vec<Value>> {
    match value {
        Value::Array(list) => Ok(list),
        _ => anyhow::bail!("the server did not answer a list"),
    }
}

/// What a server said against a request, in one line.
fn refusal(answer: &Answer) -> String {
    let said = match serde_json::from_slice(&answer.body) {
        Ok(Value::Object(fields)) => {
            let all: Vec<String> = fields
                .iter()
                .map(|(field, said)| {
                    let said = said.as_array().map_or_else(
                        || said.to_string(),
                        |list| {
                            let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                            words.join(" ")
                        },
                    );
                    format!("{field}: {said}")
                })
                .collect();
            all.join("; ")
        }
        _ => answer.text().trim().to_owned(),
    };
    format!("{said} ({})", answer.status)
}
