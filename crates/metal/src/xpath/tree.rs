//! The document tree.

/// Most nodes of one document; more are left out.
pub const MAX_NODES: usize = 500_000;

/// A node by its place in document order.
pub type NodeId = usize;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Root,
    Element(String),
    Attribute(String, String),
    Text(String),
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) parent: Option<NodeId>,
    pub(super) children: Vec<NodeId>,
    pub(super) attributes: Vec<NodeId>,
}

/// A document.
#[derive(Clone, Debug)]
pub struct Document {
    pub(super) nodes: Vec<Node>,
}

impl Default for Document {
    fn default() -> Self {
        let root = Node {
            kind: Kind::Root,
            parent: None,
            children: Vec::new(),
            attributes: Vec::new(),
        };
        Self { nodes: vec![root] }
    }
}

impl Document {
    /// The root, above the outermost element.
    pub const ROOT: NodeId = 0;

    fn push(&mut self, parent: NodeId, kind: Kind) -> Option<NodeId> {
        if self.nodes.len() >= MAX_NODES || parent >= self.nodes.len() {
            return None;
        }
        let id = self.nodes.len();
        self.nodes.push(Node {
            kind,
            parent: Some(parent),
            children: Vec::new(),
            attributes: Vec::new(),
        });
        Some(id)
    }

    /// Adds an element as the last child. None when the document is full. Nodes are to be added in document
    /// order: an element, its attributes, what is in it.
    pub fn element(&mut self, parent: NodeId, name: &str) -> Option<NodeId> {
        let id = self.push(parent, Kind::Element(name.to_owned()))?;
        self.nodes[parent].children.push(id);
        Some(id)
    }

    /// Adds an attribute to an element.
    pub fn attribute(&mut self, element: NodeId, name: &str, value: &str) {
        if let Some(id) = self.push(element, Kind::Attribute(name.to_owned(), value.to_owned())) {
            self.nodes[element].attributes.push(id);
        }
    }

    /// Adds text as the last child; it joins text that is there.
    pub fn text(&mut self, parent: NodeId, text: &str) {
        if let Some(&last) = self.nodes.get(parent).and_then(|p| p.children.last())
            && let Kind::Text(t) = &mut self.nodes[last].kind
        {
            t.push_str(text);
            return;
        }
        if let Some(id) = self.push(parent, Kind::Text(text.to_owned())) {
            self.nodes[parent].children.push(id);
        }
    }

    /// The name of an element or an attribute; empty for others.
    pub(super) fn name(&self, id: NodeId) -> &str {
        match &self.nodes[id].kind {
            Kind::Element(n) | Kind::Attribute(n, _) => n,
            Kind::Root | Kind::Text(_) => "",
        }
    }

    /// XPath 1.0 §5: the string-value of a node.
    pub(super) fn string(&self, id: NodeId) -> String {
        match &self.nodes[id].kind {
            Kind::Attribute(_, v) | Kind::Text(v) => v.clone(),
            Kind::Root | Kind::Element(_) => {
                let mut out = String::new();
                let mut stack = vec![id];
                while let Some(n) = stack.pop() {
                    match &self.nodes[n].kind {
                        Kind::Text(t) => out.push_str(t),
                        _ => stack.extend(self.nodes[n].children.iter().rev()),
                    }
                }
                out
            }
        }
    }
}
