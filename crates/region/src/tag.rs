//! `tags`: words on machines. Definitions that match by themselves come with a later version and are
//! refused until then.

use serde_json::{Value, json};
use store::Tx;

use crate::answer::Answer;
use crate::call::Call;
use crate::error::ApiError;
use crate::machine::read::visible;
use crate::node::View;
use crate::node::row;
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
        op: Some("machines"),
        title: "The machines that have a tag.",
        run: |c| Box::pin(machines(c)),
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

fn refuse_definition(call: &Call) -> Result<(), ApiError> {
    match call.args().filled("definition") {
        Some(_) => Err(ApiError::Unavailable(
            "Tags that match by a definition are not available yet; leave the definition out and use update_nodes.".to_owned(),
            3600,
        )),
        None => Ok(()),
    }
}

async fn create(call: Call) -> Result<Answer, ApiError> {
    refuse_definition(&call)?;
    let value = call
        .write(|tx, call| {
            Box::pin(async move {
                let args = call.args();
                let name = args.required("name")?;
                check_name(name)?;
                let row = store::opt!(
                    tx,
                    Row,
                    "INSERT INTO tag (name, comment, kernel_opts, created, updated) VALUES ($1, $2, $3, $4, $4) \
                     ON CONFLICT (name) DO NOTHING RETURNING id, name, comment, definition, kernel_opts",
                    name,
                    args.text("comment").unwrap_or(""),
                    args.text("kernel_opts").unwrap_or(""),
                    call.now().0
                )?
                .ok_or_else(|| ApiError::field("name", "Tag with this Name already exists."))?;
                tx.changed("tag", &row.name, 0, call.now()).await?;
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
    refuse_definition(&call)?;
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
                store::exec!(
                    tx,
                    "UPDATE tag SET name = $2, comment = $3, kernel_opts = $4, updated = $5 WHERE id = $1",
                    row.id,
                    &row.name,
                    &row.comment,
                    &row.kernel_opts,
                    call.now().0
                )
                .map_err(|e| if e.is_unique_violation() { ApiError::field("name", "Tag with this Name already exists.") } else { e.into() })?;
                tx.changed("tag", &row.name, 0, call.now()).await?;
                touch_machines(tx, &call, row.id).await?;
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

async fn machines(call: Call) -> Result<Answer, ApiError> {
    let mut tx = call.read().await?;
    let tag = find(&mut tx, &call).await?;
    let nodes = visible(&mut tx, call.actor()).await?;
    let view = View::load(&mut tx, &nodes, call.now()).await?;
    Ok(Answer::json(
        nodes
            .iter()
            .filter(|n| view.tags_of(n.id).contains(&tag.name))
            .map(|n| view.machine_json(n))
            .collect(),
    ))
}

async fn update_nodes(call: Call) -> Result<Answer, ApiError> {
    let (added, removed) = call
        .write(|tx, call| {
            Box::pin(async move {
                let tag = find(tx, &call).await?;
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
