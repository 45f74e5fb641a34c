//! The describe document, read: resources and actions under the names that they have on the command line.

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

/// What a profile can call.
pub struct Description<'a> {
    /// The hash of the document; every answer names the one that is current.
    pub hash: &'a str,
    /// Resources by the name of their command.
    pub resources: Vec<Resource>,
}

/// Things of one kind, for example `machines`.
#[derive(Debug)]
pub struct Resource {
    /// The command, for example `boot-resources`.
    pub name: String,
    /// Help, or nothing.
    pub doc: String,
    /// Names of what varies in the path, in the order of the command line.
    pub params: Vec<String>,
    /// The path with `{name}` for what varies.
    pub path: String,
    /// What can be done with them.
    pub actions: Vec<Action>,
}

/// Something that can be done.
#[derive(Debug)]
pub struct Action {
    /// The command, for example `power-on`.
    pub name: String,
    /// HTTP method.
    pub method: String,
    /// The value of `op`.
    pub op: Option<String>,
    /// Help.
    pub doc: String,
}

#[derive(Deserialize)]
struct RawResource {
    anon: Option<RawHandler>,
    auth: Option<RawHandler>,
}

#[derive(Deserialize)]
struct RawHandler {
    name: String,
    doc: Option<String>,
    #[serde(default)]
    params: Vec<String>,
    path: String,
    actions: Vec<RawAction>,
}

#[derive(Deserialize)]
struct RawAction {
    name: String,
    method: String,
    op: Option<String>,
    doc: Option<String>,
}

impl<'a> Description<'a> {
    /// Reads a document for callers with credentials or without.
    ///
    /// # Errors
    /// When it is not such a document.
    pub fn new(document: &'a Value, credentials: bool) -> anyhow::Result<Self> {
        let list = document["resources"]
            .as_array()
            .context("the description of the API has no resources")?;
        let mut resources = Vec::new();
        for value in list {
            let raw = RawResource::deserialize(value)
                .context("the description of the API cannot be read")?;
            // A resource's commands have the name of its full handler, also for those without credentials.
            let name = raw
                .auth
                .as_ref()
                .or(raw.anon.as_ref())
                .map(|h| resource_command(&h.name));
            let handler = if credentials {
                raw.auth.or(raw.anon)
            } else {
                raw.anon
            };
            if let (Some(name), Some(h)) = (name, handler) {
                resources.push(Resource::new(name, h));
            }
        }
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            hash: document["hash"].as_str().unwrap_or(""),
            resources,
        })
    }

    /// The resource with that command.
    #[must_use]
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|r| r.name == name)
    }
}

impl Resource {
    fn new(name: String, h: RawHandler) -> Self {
        let mut actions: Vec<Action> = h
            .actions
            .into_iter()
            .map(|a| Action {
                name: a.name.replace('_', "-"),
                method: a.method,
                op: a.op,
                doc: a.doc.unwrap_or_default(),
            })
            .collect();
        actions.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            name,
            doc: h.doc.unwrap_or_default(),
            params: h.params,
            path: h.path,
            actions,
        }
    }

    /// The action with that command.
    #[must_use]
    pub fn action(&self, name: &str) -> Option<&Action> {
        self.actions.iter().find(|a| a.name == name)
    }
}

/// A parameter as the help text of its action describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its type; empty when the text names none.
    pub kind: String,
    /// What it is for.
    pub doc: String,
}

impl Action {
    /// The help text without its parameters.
    #[must_use]
    pub fn summary(&self) -> String {
        let text = self.doc.split("\n:").next().unwrap_or("");
        text.trim().trim_start_matches(":param").to_owned()
    }

    /// The parameters that the help text names.
    #[must_use]
    pub fn params(&self) -> Vec<Param> {
        let mut found: Vec<Param> = Vec::new();
        let mut in_param = false;
        for line in self.doc.lines() {
            let line = line.trim();
            if let Some((name, doc)) = field(line, "param") {
                found.push(Param {
                    name: name.to_owned(),
                    kind: String::new(),
                    doc: doc.to_owned(),
                });
                in_param = true;
            } else if let Some((name, kind)) = field(line, "type") {
                if let Some(p) = found.iter_mut().find(|p| p.name == name) {
                    kind.clone_into(&mut p.kind);
                }
                in_param = false;
            } else if line.is_empty() || line.starts_with(':') {
                in_param = false;
            } else if in_param && let Some(p) = found.last_mut() {
                p.doc.push(' ');
                p.doc.push_str(line);
            }
        }
        found
    }

    /// Whether `key=value` makes sense here: the help text names a parameter.
    #[must_use]
    pub fn takes_data(&self) -> bool {
        self.doc.contains(":param ")
    }
}

/// `:WORD NAME: REST`.
fn field<'a>(line: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let (name, rest) = line
        .strip_prefix(':')?
        .strip_prefix(word)?
        .strip_prefix(' ')?
        .split_once(':')?;
    Some((name.trim(), rest.trim()))
}

/// `BootResourcesHandler` as `boot-resources`. A word is capitals and the small letters and digits behind
/// them, so that `SSHKeys` is one word.
#[must_use]
pub fn resource_command(handler: &str) -> String {
    let mut words = vec![String::new()];
    let mut small = false;
    for c in handler.chars() {
        if c.is_uppercase() && small {
            words.push(String::new());
        }
        small = !c.is_uppercase();
        words
            .last_mut()
            .expect("there is always one")
            .extend(c.to_lowercase());
    }
    words.retain(|w| !w.is_empty() && w != "handler");
    words.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_have_the_commands_that_scripts_use() {
        for (handler, command) in [
            ("MachinesHandler", "machines"),
            ("MaasHandler", "maas"),
            ("SSHKeysHandler", "sshkeys"),
            ("DHCPSnippetsHandler", "dhcpsnippets"),
            ("IPAddressesHandler", "ipaddresses"),
            ("IPRangesHandler", "ipranges"),
            ("DNSResourceRecordHandler", "dnsresource-record"),
            ("BcacheCacheSetHandler", "bcache-cache-set"),
            ("BootSourceSelectionsHandler", "boot-source-selections"),
            ("RackControllersHandler", "rack-controllers"),
            ("VlansHandler", "vlans"),
        ] {
            assert_eq!(resource_command(handler), command);
        }
    }

    #[test]
    fn parameters_come_from_the_help_text() {
        let action = Action {
            name: "create".to_owned(),
            method: "POST".to_owned(),
            op: None,
            doc: "Make a thing.\n\nIt will be there.\n\n:param name: Required. What\n   it is called.\n:type name: String\n\n:param size: Optional. How big.\n:type size: Int".to_owned(),
        };
        assert_eq!(action.summary(), "Make a thing.\n\nIt will be there.");
        let p = |n: &str, k: &str, d: &str| Param {
            name: n.into(),
            kind: k.into(),
            doc: d.into(),
        };
        assert_eq!(
            action.params(),
            [
                p("name", "String", "Required. What it is called."),
                p("size", "Int", "Optional. How big.")
            ]
        );
        assert!(action.takes_data());
    }

    #[test]
    fn without_credentials_only_anonymous_actions_are_there() {
        let handler = |name: &str, action: &str| serde_json::json!({"name": name, "doc": null, "params": [], "path": "/x/", "actions": [{"name": action, "method": "GET", "op": null, "doc": null}]});
        let document = serde_json::json!({"hash": "h", "resources": [
            {"name": "CatsHandler", "auth": handler("CatsHandler", "read"), "anon": handler("AnonCatsHandler", "is_there")},
            {"name": "DogsHandler", "auth": handler("DogsHandler", "read"), "anon": null},
        ]});
        let names = |d: &Description<'_>| -> Vec<(String, String)> {
            d.resources
                .iter()
                .map(|r| (r.name.clone(), r.actions[0].name.clone()))
                .collect()
        };
        let s = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            names(&Description::new(&document, true).unwrap()),
            [s("cats", "read"), s("dogs", "read")]
        );
        assert_eq!(
            names(&Description::new(&document, false).unwrap()),
            [s("cats", "is-there")]
        );
    }
}
