//! `tags`: words on nodes, put there by people or by a [`definition`] over what commissioning found.

pub mod definition;
pub mod probe;

use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::node::family::{Family, json_of};
use crate::node::{View, row};
use crate::operation::{Kind, Method, Operation, Param, Who};
use crate::zone::check_name;

const TAGS: Operation = Operation {
    handler: "TagsHandler",
    uri: "tags/",
    ..Operation::READ
};
const TAG: Operation = Operation {
    handler: "TagHandler",
    uri: "tags/{name}/",
    ..Operation::READ
};

/// `tags/` and `tags/{name}/`.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        title: "List tags.",
        run: |c| Box::pin(list(c)),
        ..TAGS
    },
    Operation {
        method: Method::Post,
        who: Who::Admin,
        title: "Create a tag.",
        params: &[
            Param::field("name", Kind::Text, "Name."),
            Param::opt("comment", Kind::Text, "What it is for."),
            Param::opt(
                "definition",
                Kind::Text,
                "An XPath expression over the hardware inventory.",
            ),
            Param::opt(
                "kernel_opts",
                Kind::Text,
                "Kernel options of the machines that have it.",
            ),
        ],
        audit: Some("TAG"),
        run: |c| Box::pin(create(c)),
        ..TAGS
    },
    Operation {
        title: "Read a tag.",
        run: |c| Box::pin(read(c)),
        ..TAG
    },
    Operation {
        method: Method::Put,
        who: Who::Admin,
        title: "Change a tag.",
        params: &[
            Param::opt("name", Kind::Text, "New name."),
            Param::opt("comment", Kind::Text, "What it is for."),
            Param::opt(
                "definition",
                Kind::Text,
                "An XPath expression over the hardware inventory.",
            ),
            Param::opt(
                "kernel_opts",
                Kind::Text,
                "Kernel options of the machines that have it.",
            ),
        ],
        audit: Some("TAG"),
        run: |c| Box::pin(update(c)),
        ..TAG
    },
    Operation {
        method: Method::Delete,
        who: Who::Admin,
        title: "Delete a tag.",
        success: 204,
        audit: Some("TAG"),
        run: |c| Box::pin(delete(c)),
        ..TAG
    },
    Operation {
        op: Some("nodes"),
        title: "The machines, devices and controllers that have a tag.",
        run: |c| Box::pin(members(c, Family::Nodes)),
        ..TAG
    },
    Operation {
        op: Some("machines"),
        title: "The machines that have a tag.",
        run: |c| Box::pin(members(c, Family::Machines)),
        ..TAG
    },
    Operation {
        op: Some("devices"),
        title: "The devices that have a tag.",
        run: |c| Box::pin(members(c, Family::Devices)),
        ..TAG
    },
    Operation {
        op: Some("rack_controllers"),
        title: "The rack controllers that have a tag.",
        run: |c| Box::pin(members(c, Family::Racks)),
        ..TAG
    },
    Operation {
        op: Some("region_controllers"),
        title: "The region controllers that have a tag.",
        run: |c| Box::pin(members(c, Family::Regions)),
        ..TAG
    },
    Operation {
        method: Method::Post,
        op: Some("rebuild"),
        who: Who::Admin,
        title: "Ask the definition of every machine again.",
        audit: Some("TAG"),
        run: |c| Box::pin(rebuild(c)),
        ..TAG
    },
    Operation {
        method: Method::Post,
        op: Some("update_nodes"),
        who: Who::Admin,
        title: "Put a tag on machines and take it off others.",
        params: &[
            Param::opt("add", Kind::List, "System ids that get it."),
            Param::opt("remove", Kind::List, "System ids that lose it."),
            Param::opt(
                "definition",
                Kind::Text,
                "The definition that the caller went by: refused when it is another by now.",
            ),
            Param::opt(
                "rack_controller",
                Kind::Text,
                "The rack controller that has asked the definition.",
            ),
        ],
        audit: Some("TAG"),
        run: |c| Box::pin(update_nodes(c)),
        ..TAG
    },
];

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    name: String,
    comment: String,
    definition: String,
    kernel_opts: String,
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "definition": self.definition,
            "comment": self.comment,
            "kernel_opts": self.kernel_opts,
            "resource_uri": format!("/MAAS/api/2.0/tags/{}/", self.name),
        })
    }
}

async fn find(tx: &mut Tx, call: &Call) -> Result<Row, ApiError> {
    store::opt!(
        tx,
        Row,
        "SELECT id, name, comment, definition, kernel_opts FROM tag WHERE name = $1",
        call.path("name")
    )?
    .ok_or_else(|| ApiError::missing("Tag"))
}

async fn list(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let rows = store::all!(
        tx,
        Row,
        "SELECT id, name, comment, definition, kernel_opts FROM tag ORDER BY name"
    )?;
    Ok(Answer::json(rows.iter().map(Row::json).collect()))
}

async fn read(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    Ok(Answer::json(find(&mut tx, &call).await?.json()))
}

/// The definition of a request, when it can be used.
fn definition_of(call: &Call) -> Result<Option<&str>, ApiError> {
    let given = call.args().text("definition").map(str::trim);
    if let Some(text) = given.filter(|t| !t.is_empty()) {
        definition::check(text)?;
    }
    Ok(given)
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    definition_of(&call)?;
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let args = call.args();
                let name = args.required("name")?;
                check_name(name)?;
                let row = store::opt!(
                    tx,
                    Row,
                    "INSERT INTO tag (name, comment, kernel_opts, definition, created, updated) VALUES ($1, $2, $3, $5, $4, $4) \
                     ON CONFLICT (name) DO NOTHING RETURNING id, name, comment, definition, kernel_opts",
                    name,
                    args.text("comment").unwrap_or(""),
                    args.text("kernel_opts").unwrap_or(""),
                    call.now().0,
                    definition_of(&call)?.unwrap_or("")
                )?
                .ok_or_else(|| ApiError::field("name", "Tag with this Name already exists."))?;
                tx.changed("tag", &row.name, 0, call.now()).await?;
                if !row.definition.is_empty() {
                    definition::rebuild(tx, row.id).await?;
                }
                Ok(row.json())
            })
        })
        .await?;
    Ok(Answer::json(value))
}

/// The machines that have a tag are told to racks anew: its kernel options are theirs.
async fn touch_machines(tx: &mut Tx, call: &Call, tag: i64) -> Result<(), ApiError> {
    for (id,) in store::all!(
        tx,
        (i64,),
        "SELECT node_id FROM node_tag WHERE tag_id = $1",
        tag
    )? {
        row::touch(tx, id, call.now()).await?;
    }
    Ok(())
}

async fn update(call: Call) -> Result<Answer, ApiError> {
    definition_of(&call)?;
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let mut row = find(tx, &call).await?;
                let args = call.args();
                if let Some(name) = args.filled("name") {
                    check_name(name)?;
                    row.name = name.to_owned();
                }
                if let Some(c) = args.text("comment") {
                    row.comment = c.to_owned();
                }
                if let Some(k) = args.text("kernel_opts") {
                    row.kernel_opts = k.to_owned();
                }
                let defined = definition_of(&call)?.filter(|d| *d != row.definition).map(str::to_owned);
                if let Some(d) = &defined {
                    row.definition.clone_from(d);
                }
                store::exec!(
                    tx,
                    "UPDATE tag SET name = $2, comment = $3, kernel_opts = $4, updated = $5, definition = $6 WHERE id = $1",
                    row.id,
                    &row.name,
                    &row.comment,
                    &row.kernel_opts,
                    call.now().0,
                    &row.definition
                )
                .map_err(|e| if e.is_unique_violation() { ApiError::field("name", "Tag with this Name already exists.") } else { e.into() })?;
                tx.changed("tag", &row.name, 0, call.now()).await?;
                touch_machines(tx, &call, row.id).await?;
                if defined.is_some_and(|d| !d.is_empty()) {
                    definition::rebuild(tx, row.id).await?;
                }
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
            touch_machines(tx, &call, row.id).await?;
            store::exec!(tx, "DELETE FROM tag WHERE id = $1", row.id)?;
            tx.changed("tag", &row.name, 0, call.now()).await?;
            Ok(())
        })
    })
    .await?;
    Ok(Answer::none())
}

async fn members(call: Call, family: Family) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let tag = find(&mut tx, &call).await?;
    let mut nodes = family.visible(&mut tx, call.actor()).await?;
    let tagged = store::all!(
        tx,
        (i64,),
        "SELECT node_id FROM node_tag WHERE tag_id = $1 ORDER BY node_id",
        tag.id
    )?;
    nodes.retain(|n| tagged.binary_search(&(n.id,)).is_ok());
    let view = View::load(&mut tx, &nodes, call.now()).await?;
    let all = json_of(&mut tx, &call, family, &nodes, &view).await?;
    Ok(Answer::json(all.into()))
}

async fn rebuild(call: Call) -> Result<Answer, ApiError> {
    let name = call
        .write(|tx, call| {
            Box::pin(async move {
                let tag = find(tx, &call).await?;
                if !tag.definition.is_empty() {
                    definition::rebuild(tx, tag.id).await?;
                }
                Ok(tag.name)
            })
        })
        .await?;
    Ok(Answer::json(json!({ "rebuilding": name })))
}

async fn update_nodes(call: Call) -> Result<Answer, ApiError> {
    let (added, removed) = call
        .write(|tx, call| {
            Box::pin(async move {
                let tag = find(tx, &call).await?;
                if let Some(d) = call.args().filled("definition")
                    && d != tag.definition
                {
                    // The sentence that clients of MAAS know.
                    return Err(ApiError::Conflict(format!(
                        "Definition supplied '{d}' doesn't match current definition '{}'",
                        tag.definition
                    )));
                }
                if let Some(rack) = call.args().filled("rack_controller") {
                    Family::Racks.by_system_id(tx, call.actor(), rack).await?;
                }
                let mut counts = (0, 0);
                for id in call.args().list("add") {
                    let Some(node) = row::find(tx, &id).await? else { continue };
                    counts.0 += store::exec!(
                        tx,
                        "INSERT INTO node_tag (node_id, tag_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                        node.id,
                        tag.id
                    )?;
                    node.touch(tx, call.now()).await?;
                }
                for id in call.args().list("remove") {
                    let Some(node) = row::find(tx, &id).await? else { continue };
                    counts.1 += store::exec!(tx, "DELETE FROM node_tag WHERE node_id = $1 AND tag_id = $2", node.id, tag.id)?;
                    node.touch(tx, call.now()).await?;
                }
                Ok(counts)
            })
        })
        .await?;
    Ok(Answer::json(json!({ "added": added, "removed": removed })))
}
