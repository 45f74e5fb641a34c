//! Asking an expression of a document: XPath 1.0 §3 and §4.

use super::parse::{Axis, Expr, Expression, Op, Step, Test};
use super::tree::{Document, Kind, NodeId};
use super::{MAX_VISITS, XPathError};

/// What an expression gives. Nodes are in document order, each once.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Nodes(Vec<NodeId>),
    Bool(bool),
    Number(f64),
    Text(String),
}

struct Context {
    node: NodeId,
    position: usize,
    size: usize,
}

struct Eval<'a> {
    doc: &'a Document,
    visits: u64,
}

impl Expression {
    /// Whether the expression is true of a document: a number that is not zero, a text that is not empty, or
    /// at least one node.
    ///
    /// # Errors
    /// When it cannot be evaluated, or looks at too much.
    pub fn is_true(&self, doc: &Document) -> Result<bool, XPathError> {
        Ok(truth(&self.value(doc)?))
    }

    /// The expression of a document as text.
    ///
    /// # Errors
    /// When it cannot be evaluated, or looks at too much.
    pub fn string(&self, doc: &Document) -> Result<String, XPathError> {
        let value = self.value(doc)?;
        Ok(text(doc, &value))
    }

    pub(super) fn value(&self, doc: &Document) -> Result<Value, XPathError> {
        let mut e = Eval { doc, visits: 0 };
        let context = Context {
            node: Document::ROOT,
            position: 1,
            size: 1,
        };
        e.expr(&self.0, &context)
    }
}

fn truth(v: &Value) -> bool {
    match v {
        Value::Nodes(n) => !n.is_empty(),
        Value::Bool(b) => *b,
        Value::Number(n) => *n != 0.0 && !n.is_nan(),
        Value::Text(t) => !t.is_empty(),
    }
}

/// XPath 1.0 §4.4: a number as it may be written, or not a number.
fn parse_number(text: &str) -> f64 {
    let t = text.trim_matches([' ', '\t', '\r', '\n']);
    let digits = t.strip_prefix('-').unwrap_or(t);
    let fits = !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && digits != ".";
    if fits {
        t.parse().unwrap_or(f64::NAN)
    } else {
        f64::NAN
    }
}

fn number(doc: &Document, v: &Value) -> f64 {
    match v {
        Value::Number(n) => *n,
        Value::Bool(b) => f64::from(u8::from(*b)),
        Value::Text(t) => parse_number(t),
        Value::Nodes(_) => parse_number(&text(doc, v)),
    }
}

fn show(n: f64) -> String {
    if n.is_nan() {
        "NaN".to_owned()
    } else if n.is_infinite() {
        if n > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else if n == 0.0 {
        "0".to_owned()
    } else {
        format!("{n}")
    }
}

fn text(doc: &Document, v: &Value) -> String {
    match v {
        Value::Text(t) => t.clone(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => show(*n),
        Value::Nodes(n) => n.first().map(|n| doc.string(*n)).unwrap_or_default(),
    }
}

fn compare_numbers(op: Op, a: f64, b: f64) -> bool {
    match op {
        Op::Equal => a == b,
        Op::NotEqual => a != b,
        Op::Less => a < b,
        Op::LessEqual => a <= b,
        Op::Greater => a > b,
        Op::GreaterEqual => a >= b,
        _ => false,
    }
}

/// The comparison with its sides exchanged.
const fn mirrored(op: Op) -> Op {
    match op {
        Op::Less => Op::Greater,
        Op::LessEqual => Op::GreaterEqual,
        Op::Greater => Op::Less,
        Op::GreaterEqual => Op::LessEqual,
        other => other,
    }
}

/// XPath 1.0 §4.4: the nearest whole number, the greater of two.
fn round(n: f64) -> f64 {
    if n.is_finite() { (n + 0.5).floor() } else { n }
}

impl Eval<'_> {
    fn visit(&mut self, nodes: usize) -> Result<(), XPathError> {
        self.visits += nodes as u64;
        if self.visits > MAX_VISITS {
            Err(XPathError::Work)
        } else {
            Ok(())
        }
    }

    fn expr(&mut self, e: &Expr, c: &Context) -> Result<Value, XPathError> {
        Ok(match e {
            Expr::Number(n) => Value::Number(*n),
            Expr::Literal(t) => Value::Text(t.clone()),
            Expr::Negate(inner) => {
                let v = self.expr(inner, c)?;
                Value::Number(-number(self.doc, &v))
            }
            Expr::Binary(op, a, b) => self.binary(*op, a, b, c)?,
            Expr::Call(name, arguments) => self.call(name, arguments, c)?,
            Expr::Path(from_root, steps) => {
                let start = if *from_root { Document::ROOT } else { c.node };
                Value::Nodes(self.steps(vec![start], steps)?)
            }
            Expr::From(base, predicates, steps) => {
                let Value::Nodes(mut nodes) = self.expr(base, c)? else {
                    return Err(XPathError::NotNodes("a path or a predicate"));
                };
                for p in predicates {
                    nodes = self.filter(nodes, p)?;
                }
                Value::Nodes(self.steps(nodes, steps)?)
            }
        })
    }

    fn nodes(
        &mut self,
        e: &Expr,
        c: &Context,
        what: &'static str,
    ) -> Result<Vec<NodeId>, XPathError> {
        match self.expr(e, c)? {
            Value::Nodes(n) => Ok(n),
            _ => Err(XPathError::NotNodes(what)),
        }
    }

    fn binary(&mut self, op: Op, a: &Expr, b: &Expr, c: &Context) -> Result<Value, XPathError> {
        match op {
            Op::Or => {
                return Ok(Value::Bool(
                    truth(&self.expr(a, c)?) || truth(&self.expr(b, c)?),
                ));
            }
            Op::And => {
                return Ok(Value::Bool(
                    truth(&self.expr(a, c)?) && truth(&self.expr(b, c)?),
                ));
            }
            Op::Union => {
                let mut all = self.nodes(a, c, "|")?;
                all.extend(self.nodes(b, c, "|")?);
                all.sort_unstable();
                all.dedup();
                return Ok(Value::Nodes(all));
            }
            _ => {}
        }
        let (left, right) = (self.expr(a, c)?, self.expr(b, c)?);
        if matches!(
            op,
            Op::Equal | Op::NotEqual | Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual
        ) {
            return Ok(Value::Bool(self.compare(op, &left, &right)?));
        }
        let (x, y) = (number(self.doc, &left), number(self.doc, &right));
        Ok(Value::Number(match op {
            Op::Add => x + y,
            Op::Subtract => x - y,
            Op::Multiply => x * y,
            Op::Divide => x / y,
            _ => x % y,
        }))
    }

    /// XPath 1.0 §3.4: a set of nodes compares as any of them does.
    fn compare(&mut self, op: Op, a: &Value, b: &Value) -> Result<bool, XPathError> {
        let equality = matches!(op, Op::Equal | Op::NotEqual);
        match (a, b) {
            (Value::Nodes(x), Value::Nodes(y)) => {
                self.visit(x.len().saturating_mul(y.len().max(1)))?;
                let strings =
                    |n: &[NodeId]| n.iter().map(|n| self.doc.string(*n)).collect::<Vec<_>>();
                let (x, y) = (strings(x), strings(y));
                Ok(x.iter().any(|l| {
                    y.iter().any(|r| match op {
                        Op::Equal => l == r,
                        Op::NotEqual => l != r,
                        _ => compare_numbers(op, parse_number(l), parse_number(r)),
                    })
                }))
            }
            (Value::Nodes(_), Value::Bool(y)) if equality => Ok(compare_numbers(
                op,
                f64::from(u8::from(truth(a))),
                f64::from(u8::from(*y)),
            )),
            (Value::Nodes(x), other) => {
                self.visit(x.len())?;
                Ok(x.iter().any(|n| {
                    let s = self.doc.string(*n);
                    match (op, other) {
                        (Op::Equal, Value::Text(t)) => s == *t,
                        (Op::NotEqual, Value::Text(t)) => s != *t,
                        _ => compare_numbers(op, parse_number(&s), number(self.doc, other)),
                    }
                }))
            }
            (_, Value::Nodes(_)) => self.compare(mirrored(op), b, a),
            _ if equality => {
                let same = match (a, b) {
                    (Value::Bool(_), _) | (_, Value::Bool(_)) => truth(a) == truth(b),
                    (Value::Number(_), _) | (_, Value::Number(_)) => {
                        number(self.doc, a) == number(self.doc, b)
                    }
                    _ => text(self.doc, a) == text(self.doc, b),
                };
                Ok(same == (op == Op::Equal))
            }
            _ => Ok(compare_numbers(
                op,
                number(self.doc, a),
                number(self.doc, b),
            )),
        }
    }

    fn steps(&mut self, start: Vec<NodeId>, steps: &[Step]) -> Result<Vec<NodeId>, XPathError> {
        let mut nodes = start;
        for step in steps {
            let mut next = Vec::new();
            for node in nodes {
                let mut found = self.axis(node, step.axis)?;
                found.retain(|n| self.passes(*n, step));
                for p in &step.predicates {
                    found = self.filter(found, p)?;
                }
                next.extend(found);
            }
            next.sort_unstable();
            next.dedup();
            nodes = next;
        }
        Ok(nodes)
    }

    /// Keeps the nodes of which a predicate is true; a number is their place.
    fn filter(&mut self, nodes: Vec<NodeId>, predicate: &Expr) -> Result<Vec<NodeId>, XPathError> {
        let size = nodes.len();
        self.visit(size)?;
        let mut out = Vec::new();
        for (i, node) in nodes.into_iter().enumerate() {
            let c = Context {
                node,
                position: i + 1,
                size,
            };
            let keep = match self.expr(predicate, &c)? {
                #[allow(clippy::cast_precision_loss)] // documents have far fewer nodes than 2^52
                Value::Number(n) => n == c.position as f64,
                other => truth(&other),
            };
            if keep {
                out.push(node);
            }
        }
        Ok(out)
    }

    fn passes(&self, n: NodeId, step: &Step) -> bool {
        let kind = &self.doc.nodes[n].kind;
        let principal = if step.axis == Axis::Attribute {
            matches!(kind, Kind::Attribute(..))
        } else {
            matches!(kind, Kind::Element(_))
        };
        match &step.test {
            Test::Any => principal,
            Test::Prefix(p) => principal && self.doc.name(n).starts_with(p.as_str()),
            Test::Name(name) => principal && self.doc.name(n) == name,
            Test::Node => true,
            Test::Text => matches!(kind, Kind::Text(_)),
            Test::Nothing => false,
        }
    }

    fn below(&mut self, node: NodeId, out: &mut Vec<NodeId>) -> Result<(), XPathError> {
        let mut stack: Vec<NodeId> = self.doc.nodes[node]
            .children
            .iter()
            .rev()
            .copied()
            .collect();
        while let Some(n) = stack.pop() {
            self.visit(1)?;
            out.push(n);
            stack.extend(self.doc.nodes[n].children.iter().rev());
        }
        Ok(())
    }

    fn above(&self, node: NodeId) -> Vec<NodeId> {
        let mut out = Vec::new();
        let mut at = self.doc.nodes[node].parent;
        while let Some(n) = at {
            out.push(n);
            at = self.doc.nodes[n].parent;
        }
        out
    }

    fn siblings(&self, node: NodeId, after: bool) -> Vec<NodeId> {
        let Some(parent) = self.doc.nodes[node].parent else {
            return Vec::new();
        };
        let all = &self.doc.nodes[parent].children;
        let Some(at) = all.iter().position(|n| *n == node) else {
            return Vec::new();
        };
        if after {
            all[at + 1..].to_vec()
        } else {
            all[..at].iter().rev().copied().collect()
        }
    }

    /// The nodes of an axis, the nearest first.
    fn axis(&mut self, node: NodeId, axis: Axis) -> Result<Vec<NodeId>, XPathError> {
        let mut out = Vec::new();
        match axis {
            Axis::SelfNode => out.push(node),
            Axis::Child => out.clone_from(&self.doc.nodes[node].children),
            Axis::Attribute => out.clone_from(&self.doc.nodes[node].attributes),
            Axis::Namespace => {}
            Axis::Parent => out.extend(self.doc.nodes[node].parent),
            Axis::Ancestor => out = self.above(node),
            Axis::AncestorOrSelf => {
                out.push(node);
                out.extend(self.above(node));
            }
            Axis::Descendant => self.below(node, &mut out)?,
            Axis::DescendantOrSelf => {
                out.push(node);
                self.below(node, &mut out)?;
            }
            Axis::FollowingSibling => out = self.siblings(node, true),
            Axis::PrecedingSibling => out = self.siblings(node, false),
            Axis::Following | Axis::Preceding => {
                let after = axis == Axis::Following;
                let mut places = vec![node];
                places.extend(self.above(node));
                for p in places {
                    for s in self.siblings(p, after) {
                        let mut branch = vec![s];
                        self.below(s, &mut branch)?;
                        if !after {
                            branch.reverse();
                        }
                        out.extend(branch);
                    }
                }
            }
        }
        self.visit(out.len())?;
        Ok(out)
    }

    /// The text that a function works on: its argument, or the context node.
    fn argument(
        &mut self,
        arguments: &[Expr],
        at: usize,
        c: &Context,
    ) -> Result<String, XPathError> {
        match arguments.get(at) {
            None => Ok(self.doc.string(c.node)),
            Some(e) => {
                let v = self.expr(e, c)?;
                Ok(text(self.doc, &v))
            }
        }
    }

    fn numeric(&mut self, arguments: &[Expr], at: usize, c: &Context) -> Result<f64, XPathError> {
        match arguments.get(at) {
            None => Ok(parse_number(&self.doc.string(c.node))),
            Some(e) => {
                let v = self.expr(e, c)?;
                Ok(number(self.doc, &v))
            }
        }
    }

    #[allow(clippy::cast_precision_loss)] // lengths and places are far below 2^52
    fn call(&mut self, name: &str, a: &[Expr], c: &Context) -> Result<Value, XPathError> {
        let name_of = |e: &mut Self| -> Result<String, XPathError> {
            let node = match a.first() {
                None => Some(c.node),
                Some(x) => e.nodes(x, c, "a name")?.first().copied(),
            };
            Ok(node.map(|n| e.doc.name(n).to_owned()).unwrap_or_default())
        };
        Ok(match name {
            "last" => Value::Number(c.size as f64),
            "position" => Value::Number(c.position as f64),
            "count" => Value::Number(self.nodes(&a[0], c, "count()")?.len() as f64),
            // There is no document type that would say which attribute is an id.
            "id" => Value::Nodes(Vec::new()),
            "namespace-uri" => Value::Text(String::new()),
            "name" => Value::Text(name_of(self)?),
            "local-name" => {
                let full = name_of(self)?;
                Value::Text(full.rsplit(':').next().unwrap_or("").to_owned())
            }
            "string" => Value::Text(self.argument(a, 0, c)?),
            "concat" => {
                let mut out = String::new();
                for i in 0..a.len() {
                    out.push_str(&self.argument(a, i, c)?);
                    self.visit(out.len() / 64 + 1)?;
                }
                Value::Text(out)
            }
            "starts-with" => Value::Bool(
                self.argument(a, 0, c)?
                    .starts_with(&self.argument(a, 1, c)?),
            ),
            "contains" => Value::Bool(self.argument(a, 0, c)?.contains(&self.argument(a, 1, c)?)),
            "substring-before" => {
                let (s, t) = (self.argument(a, 0, c)?, self.argument(a, 1, c)?);
                Value::Text(
                    s.split_once(&t)
                        .map(|(b, _)| b.to_owned())
                        .unwrap_or_default(),
                )
            }
            "substring-after" => {
                let (s, t) = (self.argument(a, 0, c)?, self.argument(a, 1, c)?);
                Value::Text(
                    s.split_once(&t)
                        .map(|(_, b)| b.to_owned())
                        .unwrap_or_default(),
                )
            }
            "substring" => {
                let s = self.argument(a, 0, c)?;
                let from = round(self.numeric(a, 1, c)?);
                let to = if a.len() > 2 {
                    from + round(self.numeric(a, 2, c)?)
                } else {
                    f64::INFINITY
                };
                let inside = |i: usize| {
                    let place = (i + 1) as f64;
                    place >= from && place < to
                };
                let kept = s.chars().enumerate().filter(|(i, _)| inside(*i));
                Value::Text(kept.map(|(_, ch)| ch).collect())
            }
            "string-length" => Value::Number(self.argument(a, 0, c)?.chars().count() as f64),
            "normalize-space" => {
                let s = self.argument(a, 0, c)?;
                Value::Text(s.split_whitespace().collect::<Vec<_>>().join(" "))
            }
            "translate" => {
                let s = self.argument(a, 0, c)?;
                let from: Vec<char> = self.argument(a, 1, c)?.chars().collect();
                let to: Vec<char> = self.argument(a, 2, c)?.chars().collect();
                let change = |ch: char| match from.iter().position(|f| *f == ch) {
                    None => Some(ch),
                    Some(i) => to.get(i).copied(),
                };
                Value::Text(s.chars().filter_map(change).collect())
            }
            "boolean" => {
                let v = self.expr(&a[0], c)?;
                Value::Bool(truth(&v))
            }
            "not" => {
                let v = self.expr(&a[0], c)?;
                Value::Bool(!truth(&v))
            }
            "true" => Value::Bool(true),
            "false" | "lang" => Value::Bool(false),
            "number" => Value::Number(self.numeric(a, 0, c)?),
            "sum" => {
                let nodes = self.nodes(&a[0], c, "sum()")?;
                Value::Number(
                    nodes
                        .iter()
                        .map(|n| parse_number(&self.doc.string(*n)))
                        .sum(),
                )
            }
            "floor" => Value::Number(self.numeric(a, 0, c)?.floor()),
            "ceiling" => Value::Number(self.numeric(a, 0, c)?.ceil()),
            _ => Value::Number(round(self.numeric(a, 0, c)?)),
        })
    }
}
