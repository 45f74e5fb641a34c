//! From text to an expression: XPath 1.0 §2 and §3.

use super::XPathError;

/// Most bytes of an expression.
pub const MAX_EXPRESSION: usize = 16 << 10;
/// How deep an expression may be nested.
pub const MAX_DEPTH: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    Ancestor,
    AncestorOrSelf,
    Attribute,
    Child,
    Descendant,
    DescendantOrSelf,
    Following,
    FollowingSibling,
    Namespace,
    Parent,
    Preceding,
    PrecedingSibling,
    SelfNode,
}

const AXES: [(&str, Axis); 13] = [
    ("ancestor", Axis::Ancestor),
    ("ancestor-or-self", Axis::AncestorOrSelf),
    ("attribute", Axis::Attribute),
    ("child", Axis::Child),
    ("descendant", Axis::Descendant),
    ("descendant-or-self", Axis::DescendantOrSelf),
    ("following", Axis::Following),
    ("following-sibling", Axis::FollowingSibling),
    ("namespace", Axis::Namespace),
    ("parent", Axis::Parent),
    ("preceding", Axis::Preceding),
    ("preceding-sibling", Axis::PrecedingSibling),
    ("self", Axis::SelfNode),
];

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    /// `*`
    Any,
    /// `prefix:*`
    Prefix(String),
    /// A name.
    Name(String),
    /// `node()`
    Node,
    /// `text()`
    Text,
    /// `comment()` and `processing-instruction()`: there are none.
    Nothing,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) axis: Axis,
    pub(super) test: Test,
    pub(super) predicates: Vec<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Union,
}

impl Op {
    const fn strength(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Equal | Self::NotEqual => 3,
            Self::Less | Self::LessEqual | Self::Greater | Self::GreaterEqual => 4,
            Self::Add | Self::Subtract => 5,
            Self::Multiply | Self::Divide | Self::Modulo => 6,
            Self::Union => 8,
        }
    }
}

/// How strongly a minus before something binds: more than `*`, less than `|`.
const NEGATION: u8 = 7;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Binary(Op, Box<Expr>, Box<Expr>),
    Negate(Box<Expr>),
    Number(f64),
    Literal(String),
    Call(String, Vec<Expr>),
    /// Steps from the root or from the context node.
    Path(bool, Vec<Step>),
    /// Steps from what an expression gives, after predicates on it.
    From(Box<Expr>, Vec<Expr>, Vec<Step>),
}

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression(pub(super) Expr);

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Number(f64),
    Literal(String),
    Op(Op),
    /// `*` as a name test.
    Star,
    Axis(Axis),
    Slash,
    DoubleSlash,
    Open,
    Close,
    OpenPredicate,
    ClosePredicate,
    Dot,
    DotDot,
    At,
    Comma,
    End,
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<(usize, Token)>,
}

fn starts_name(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn in_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.')
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn wrong(&self, expected: &'static str) -> XPathError {
        XPathError::Syntax {
            at: self.text[..self.at].chars().count() + 1,
            found: self.rest().chars().take(20).collect(),
            expected,
        }
    }

    /// XPath 1.0 §3.7: after an operand, `*` multiplies and a name is an operator.
    fn after_operand(&self) -> bool {
        match self.tokens.last() {
            None => false,
            Some((_, t)) => !matches!(
                t,
                Token::At
                    | Token::Axis(_)
                    | Token::Open
                    | Token::OpenPredicate
                    | Token::Comma
                    | Token::Op(_)
                    | Token::Slash
                    | Token::DoubleSlash
            ),
        }
    }

    fn take(&mut self, length: usize, token: Token) {
        self.tokens.push((self.at, token));
        self.at += length;
    }

    fn run(mut self) -> Result<Vec<(usize, Token)>, XPathError> {
        const FIXED: [(&str, Token); 18] = [
            ("//", Token::DoubleSlash),
            ("/", Token::Slash),
            ("(", Token::Open),
            (")", Token::Close),
            ("[", Token::OpenPredicate),
            ("]", Token::ClosePredicate),
            ("..", Token::DotDot),
            ("@", Token::At),
            (",", Token::Comma),
            ("|", Token::Op(Op::Union)),
            ("+", Token::Op(Op::Add)),
            ("-", Token::Op(Op::Subtract)),
            ("!=", Token::Op(Op::NotEqual)),
            ("=", Token::Op(Op::Equal)),
            ("<=", Token::Op(Op::LessEqual)),
            ("<", Token::Op(Op::Less)),
            (">=", Token::Op(Op::GreaterEqual)),
            (">", Token::Op(Op::Greater)),
        ];
        loop {
            let trimmed = self.rest().trim_start();
            self.at = self.text.len() - trimmed.len();
            let Some(first) = self.rest().chars().next() else {
                let at = self.at;
                self.tokens.push((at, Token::End));
                return Ok(self.tokens);
            };
            let second = self.rest().chars().nth(1);
            if first.is_ascii_digit() || first == '.' && second.is_some_and(|c| c.is_ascii_digit())
            {
                let digits = self
                    .rest()
                    .find(|c: char| !c.is_ascii_digit() && c != '.')
                    .unwrap_or(self.rest().len());
                let number = self.rest()[..digits]
                    .parse::<f64>()
                    .map_err(|_| self.wrong("a number"))?;
                self.take(digits, Token::Number(number));
            } else if first == '"' || first == '\'' {
                let end = self.rest()[1..]
                    .find(first)
                    .ok_or_else(|| self.wrong("a closing quote"))?;
                let text = self.rest()[1..=end].to_owned();
                self.take(end + 2, Token::Literal(text));
            } else if let Some((word, token)) =
                FIXED.iter().find(|(w, _)| self.rest().starts_with(w))
            {
                self.take(word.len(), token.clone());
            } else if first == '.' {
                self.take(1, Token::Dot);
            } else if first == '*' {
                let token = if self.after_operand() {
                    Token::Op(Op::Multiply)
                } else {
                    Token::Star
                };
                self.take(1, token);
            } else if starts_name(first) {
                self.name()?;
            } else {
                return Err(self.wrong("an expression"));
            }
        }
    }

    fn name(&mut self) -> Result<(), XPathError> {
        let rest = self.rest();
        let end = rest.find(|c| !in_name(c)).unwrap_or(rest.len());
        let word = rest[..end].to_owned();
        if self.after_operand() {
            let op = match word.as_str() {
                "and" => Op::And,
                "or" => Op::Or,
                "div" => Op::Divide,
                "mod" => Op::Modulo,
                _ => return Err(self.wrong("an operator")),
            };
            self.take(end, Token::Op(op));
            return Ok(());
        }
        let behind = rest[end..].trim_start();
        if behind.starts_with("::") {
            let axis = AXES.iter().find(|(w, _)| *w == word);
            let (_, axis) = axis.ok_or_else(|| self.wrong("an axis"))?;
            let length = rest.len() - behind.len() + 2;
            self.take(length, Token::Axis(*axis));
            return Ok(());
        }
        // A prefix, a colon, and a name or a star.
        if let Some(local) = rest[end..].strip_prefix(':') {
            if local.starts_with('*') {
                self.take(end + 2, Token::Name(format!("{word}:*")));
                return Ok(());
            }
            if local.starts_with(starts_name) {
                let more = local.find(|c| !in_name(c)).unwrap_or(local.len());
                let full = format!("{word}:{}", &local[..more]);
                self.take(end + 1 + more, Token::Name(full));
                return Ok(());
            }
            return Err(self.wrong("a name"));
        }
        self.take(end, Token::Name(word));
        Ok(())
    }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
}

/// How many arguments each function takes, at least and at most.
const FUNCTIONS: [(&str, usize, usize); 27] = [
    ("last", 0, 0),
    ("position", 0, 0),
    ("count", 1, 1),
    ("id", 1, 1),
    ("local-name", 0, 1),
    ("namespace-uri", 0, 1),
    ("name", 0, 1),
    ("string", 0, 1),
    ("concat", 2, usize::MAX),
    ("starts-with", 2, 2),
    ("contains", 2, 2),
    ("substring-before", 2, 2),
    ("substring-after", 2, 2),
    ("substring", 2, 3),
    ("string-length", 0, 1),
    ("normalize-space", 0, 1),
    ("translate", 3, 3),
    ("boolean", 1, 1),
    ("not", 1, 1),
    ("true", 0, 0),
    ("false", 0, 0),
    ("lang", 1, 1),
    ("number", 0, 1),
    ("sum", 1, 1),
    ("floor", 1, 1),
    ("ceiling", 1, 1),
    ("round", 1, 1),
];

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(_, t)| t)
    }

    fn next(&mut self) -> Token {
        let t = self.peek().clone();
        self.at += 1;
        t
    }

    fn is(&mut self, token: &Token) -> bool {
        let same = self.peek() == token;
        if same {
            self.at += 1;
        }
        same
    }

    fn wrong(&self, expected: &'static str) -> XPathError {
        let byte = self
            .tokens
            .get(self.at)
            .map_or(self.text.len(), |(b, _)| *b);
        let found: String = self.text[byte..].chars().take(20).collect();
        XPathError::Syntax {
            at: self.text[..byte].chars().count() + 1,
            found: if found.is_empty() {
                "the end".to_owned()
            } else {
                found
            },
            expected,
        }
    }

    fn expect(&mut self, token: &Token, what: &'static str) -> Result<(), XPathError> {
        if self.is(token) {
            Ok(())
        } else {
            Err(self.wrong(what))
        }
    }

    fn deeper<T>(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<T, XPathError>,
    ) -> Result<T, XPathError> {
        if self.depth >= MAX_DEPTH {
            return Err(XPathError::Deep);
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// Operators that bind at least so strongly.
    fn binary(&mut self, least: u8) -> Result<Expr, XPathError> {
        self.deeper(|p| {
            let mut left = if p.is(&Token::Op(Op::Subtract)) {
                Expr::Negate(Box::new(p.binary(NEGATION)?))
            } else {
                p.path()?
            };
            while let Token::Op(op) = *p.peek() {
                if op.strength() < least {
                    break;
                }
                p.at += 1;
                let right = p.binary(op.strength() + 1)?;
                left = Expr::Binary(op, Box::new(left), Box::new(right));
            }
            Ok(left)
        })
    }

    fn path(&mut self) -> Result<Expr, XPathError> {
        let base = match self.peek().clone() {
            Token::Number(n) => {
                self.at += 1;
                Expr::Number(n)
            }
            Token::Literal(t) => {
                self.at += 1;
                Expr::Literal(t)
            }
            Token::Open => {
                self.at += 1;
                let inner = self.binary(0)?;
                self.expect(&Token::Close, "a closing parenthesis")?;
                inner
            }
            Token::Name(name) if self.is_function(&name) => self.call(name)?,
            _ => return self.location(),
        };
        let mut predicates = Vec::new();
        while *self.peek() == Token::OpenPredicate {
            predicates.push(self.predicate()?);
        }
        let mut steps = Vec::new();
        if matches!(self.peek(), Token::Slash | Token::DoubleSlash) {
            self.steps(&mut steps)?;
        }
        if predicates.is_empty() && steps.is_empty() {
            return Ok(base);
        }
        Ok(Expr::From(Box::new(base), predicates, steps))
    }

    fn is_function(&self, name: &str) -> bool {
        let open = self.tokens.get(self.at + 1).map(|(_, t)| t) == Some(&Token::Open);
        open && !matches!(name, "node" | "text" | "comment" | "processing-instruction")
    }

    fn call(&mut self, name: String) -> Result<Expr, XPathError> {
        self.at += 2;
        let mut arguments = Vec::new();
        if !self.is(&Token::Close) {
            loop {
                arguments.push(self.binary(0)?);
                if self.is(&Token::Close) {
                    break;
                }
                self.expect(&Token::Comma, "a comma or a closing parenthesis")?;
            }
        }
        let fits = FUNCTIONS
            .iter()
            .any(|(n, least, most)| *n == name && (*least..=*most).contains(&arguments.len()));
        if fits {
            Ok(Expr::Call(name, arguments))
        } else {
            Err(XPathError::Function {
                name,
                arguments: arguments.len(),
            })
        }
    }

    fn location(&mut self) -> Result<Expr, XPathError> {
        let mut steps = Vec::new();
        match self.peek() {
            Token::Slash => {
                self.at += 1;
                if self.starts_step() {
                    steps.push(self.step()?);
                    self.steps(&mut steps)?;
                }
                Ok(Expr::Path(true, steps))
            }
            Token::DoubleSlash => {
                self.steps(&mut steps)?;
                Ok(Expr::Path(true, steps))
            }
            _ => {
                steps.push(self.step()?);
                self.steps(&mut steps)?;
                Ok(Expr::Path(false, steps))
            }
        }
    }

    fn starts_step(&self) -> bool {
        matches!(
            self.peek(),
            Token::Name(_) | Token::Star | Token::Axis(_) | Token::At | Token::Dot | Token::DotDot
        )
    }

    fn steps(&mut self, steps: &mut Vec<Step>) -> Result<(), XPathError> {
        loop {
            if self.is(&Token::DoubleSlash) {
                steps.push(Step {
                    axis: Axis::DescendantOrSelf,
                    test: Test::Node,
                    predicates: Vec::new(),
                });
            } else if !self.is(&Token::Slash) {
                return Ok(());
            }
            steps.push(self.step()?);
        }
    }

    fn step(&mut self) -> Result<Step, XPathError> {
        let short = match self.peek() {
            Token::Dot => Some(Axis::SelfNode),
            Token::DotDot => Some(Axis::Parent),
            _ => None,
        };
        if let Some(axis) = short {
            self.at += 1;
            return Ok(Step {
                axis,
                test: Test::Node,
                predicates: Vec::new(),
            });
        }
        let axis = match *self.peek() {
            Token::At => {
                self.at += 1;
                Axis::Attribute
            }
            Token::Axis(a) => {
                self.at += 1;
                a
            }
            _ => Axis::Child,
        };
        let test = match self.next() {
            Token::Star => Test::Any,
            Token::Name(n) if *self.peek() == Token::Open => {
                self.at += 1;
                let test = match n.as_str() {
                    "node" => Test::Node,
                    "text" => Test::Text,
                    _ => Test::Nothing,
                };
                if n == "processing-instruction" && matches!(self.peek(), Token::Literal(_)) {
                    self.at += 1;
                }
                self.expect(&Token::Close, "a closing parenthesis")?;
                test
            }
            Token::Name(n) => match n.strip_suffix(":*") {
                Some(prefix) => Test::Prefix(format!("{prefix}:")),
                None => Test::Name(n),
            },
            _ => {
                self.at -= 1;
                return Err(self.wrong("a step of a path"));
            }
        };
        let mut predicates = Vec::new();
        while *self.peek() == Token::OpenPredicate {
            predicates.push(self.predicate()?);
        }
        Ok(Step {
            axis,
            test,
            predicates,
        })
    }

    fn predicate(&mut self) -> Result<Expr, XPathError> {
        self.expect(&Token::OpenPredicate, "a predicate")?;
        let inner = self.binary(0)?;
        self.expect(&Token::ClosePredicate, "a closing bracket")?;
        Ok(inner)
    }
}

impl std::str::FromStr for Expression {
    type Err = XPathError;

    fn from_str(text: &str) -> Result<Self, XPathError> {
        if text.len() > MAX_EXPRESSION {
            return Err(XPathError::Long);
        }
        let lexer = Lexer {
            text,
            at: 0,
            tokens: Vec::new(),
        };
        let tokens = lexer.run()?;
        let mut parser = Parser {
            text,
            tokens,
            at: 0,
            depth: 0,
        };
        let expr = parser.binary(0)?;
        if *parser.peek() == Token::End {
            Ok(Self(expr))
        } else {
            Err(parser.wrong("an operator or the end"))
        }
    }
}
