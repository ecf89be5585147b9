//! An object of JSON as a list of values that borrow from its text.
//!
//! ```text
//! {"a":1,"b":{"c":"x"}}   ─►   0 object  1 a=1  2 b object  3 b.c="x"     each with the size of what hangs below it
//!                                   └ shapes: the names on the way to a value, known since the documents before
//! ```
//!
//! Documents of one sender have the same names in the same order: a name is compared with the one that followed last time,
//! and what it means was found out then. What is JSON here is what `serde_json` reads, to its bound of depth.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use super::super::attributes::{MAX_DEPTH, MAX_NAME_BYTES};
use super::super::identity::{Names, known};

/// Values and members of one document: each is a byte or two there, and a hundred in memory.
pub(super) const MAX_VALUES: usize = 100_000;

/// As deep as `serde_json` goes.
const MAX_NESTED: usize = 127;

/// With more names than this what is known of them is forgotten: names that never come again are values in truth.
const MAX_SHAPES: usize = 20_000;

/// So many siblings are looked through one by one.
const FEW: usize = 16;

/// How deep the names that mean something for a stream may lie.
const OFFERED_DEPTH: u32 = 5;

/// A value; numbers of nodes count from the document's own object, which is 0.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) shape: u32,
    /// How many nodes it is with all below it.
    pub(super) size: u32,
    parent: u32,
    pub(super) is_gone: bool,
    pub(super) held: Held<'a>,
}

#[derive(Debug)]
pub(super) enum Held<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List,
    Object,
}

/// The names on the way to a value.
#[derive(Debug, Default)]
pub(super) struct Shape {
    key: Box<str>,
    /// With dots; of what lies below a name that is too long, nothing.
    pub(super) path: Box<str>,
    /// How many names.
    depth: u32,
    /// A bit for each of the reader's names that the path is.
    roles: u64,
    /// Whether its text may name the stream.
    is_known: bool,
    /// Whether the path may be the name of an attribute.
    is_name: bool,
    children: Vec<u32>,
    /// Their places in `children`, once there are more than a few.
    by_key: HashMap<Box<str>, u32>,
    /// The object that had a member of this name last, and that member: of two in one object the last one counts.
    last: (u64, u32),
}

/// A document, and what is known of the names in all documents so far.
#[derive(Debug, Default)]
pub(super) struct Tree<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) shapes: Vec<Shape>,
    /// What the reader looks for: a path, and the bit that stands for it.
    names: Vec<(String, u64)>,
    /// Nodes that the reader looks for, with their bits.
    found: Vec<(u64, u32)>,
    /// Texts that may name the stream, in their order.
    pub(super) offered: Vec<u32>,
    /// Objects so far, in all documents.
    objects: u64,
    /// How often the shapes began anew: their numbers mean others then.
    pub(super) times_forgotten: u64,
    /// How many objects and lists lie in one another at most.
    deepest: usize,
}

/// Why a text is no tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    Syntax,
    TooMany,
}

impl<'a> Tree<'a> {
    /// Looks for paths, each with a bit of its own.
    pub(super) fn new(names: Vec<(String, u64)>) -> Self {
        Self { names, ..Self::default() }
    }

    /// Reads an object; what the tree held before is gone.
    pub(super) fn read(&mut self, text: &'a str) -> Result<(), Malformed> {
        self.nodes.clear();
        self.found.clear();
        self.offered.clear();
        self.deepest = 0;
        if self.shapes.len() > MAX_SHAPES || self.shapes.is_empty() {
            self.times_forgotten += 1;
            self.shapes.clear();
            self.shapes.push(Shape::default());
        }
        // Without an early end, many bytes are looked at at once.
        let has_controls = text.bytes().map(|byte| usize::from(byte < 0x20)).sum::<usize>() > 0;
        let mut parser = Parser { tree: self, text, at: 0, has_controls, values: 0 };
        parser.skip_spaces();
        if parser.peek() != Some(b'{') {
            return Err(Malformed::Syntax);
        }
        parser.value(Place { shape: 0, parent: 0, is_in_list: false, nested: 0 })?;
        parser.skip_spaces();
        if parser.at == text.len() { Ok(()) } else { Err(Malformed::Syntax) }
    }

    /// The value at a path that the reader looks for. Of several, the one that lies least deep.
    pub(super) fn find(&self, bit: u64) -> Option<u32> {
        let there = self.found.iter().filter(|(bits, node)| bits & bit > 0 && !self.node(*node).is_gone);
        there.map(|(_, node)| *node).min_by_key(|node| self.level(*node))
    }

    /// In how many objects it lies.
    fn level(&self, node: u32) -> usize {
        let mut at = node;
        let mut level = 0;
        while at > 0 {
            at = self.node(at).parent;
            level += 1;
        }
        level
    }

    pub(super) fn node(&self, node: u32) -> &Node<'a> {
        &self.nodes[node as usize]
    }

    pub(super) fn shape_of(&self, node: u32) -> &Shape {
        &self.shapes[self.node(node).shape as usize]
    }

    /// What hangs directly below a node and is not gone.
    pub(super) fn below(&self, node: u32) -> impl Iterator<Item = u32> {
        let end = node + self.node(node).size;
        let mut at = node + 1;
        std::iter::from_fn(move || {
            while at < end {
                let this = at;
                at += self.node(this).size;
                if !self.node(this).is_gone {
                    return Some(this);
                }
            }
            None
        })
    }

    /// Takes a member out, and the objects that are empty then.
    pub(super) fn remove(&mut self, node: u32) {
        let mut at = node;
        while at > 0 {
            self.forget(at);
            at = self.node(at).parent;
            if self.below(at).next().is_some() {
                return;
            }
        }
    }

    /// Takes all out.
    pub(super) fn remove_all(&mut self) {
        self.forget(0);
    }

    /// Finds the values that are neither objects nor lists nor nothing, in their order. `false` if some of them are no
    /// attributes of their own: by the name, or because they lie too deep.
    pub(super) fn leaves(&self, found: &mut Vec<u32>) -> bool {
        found.clear();
        let mut are_plain = self.deepest <= MAX_DEPTH;
        for (number, node) in (0..).zip(&self.nodes).skip(1) {
            if node.is_gone || matches!(node.held, Held::Null) {
                continue;
            }
            are_plain &= self.shapes[node.shape as usize].is_name;
            if !matches!(node.held, Held::Object | Held::List) {
                found.push(number);
            }
        }
        are_plain
    }

    fn forget(&mut self, node: u32) {
        let end = node + self.node(node).size;
        self.nodes[node as usize..end as usize].iter_mut().for_each(|node| node.is_gone = true);
    }

    /// The value with all below it.
    pub(super) fn to_value(&self, node: u32) -> Value {
        match &self.node(node).held {
            Held::Null => Value::Null,
            Held::Bool(flag) => Value::Bool(*flag),
            Held::Number(number) => Value::Number(number.clone()),
            Held::Text(text) => Value::String(text.to_string()),
            Held::List => self.below(node).map(|one| self.to_value(one)).collect(),
            Held::Object => {
                let member = |one| (self.shape_of(one).key.to_string(), self.to_value(one));
                Value::Object(self.below(node).map(member).collect::<Map<_, _>>())
            }
        }
    }

    /// The shape of a member; `guess` is the place at which it is looked for first, and then the place behind it.
    fn child(&mut self, parent: u32, key: &str, guess: &mut usize) -> u32 {
        let siblings = &self.shapes[parent as usize];
        let is_it = |child: &u32| *self.shapes[*child as usize].key == *key;
        if let Some(child) = siblings.children.get(*guess).filter(|child| is_it(child)) {
            *guess += 1;
            return *child;
        }
        let place = if siblings.by_key.is_empty() {
            siblings.children.iter().position(is_it)
        } else {
            siblings.by_key.get(key).map(|place| *place as usize)
        };
        if let Some(place) = place {
            *guess = place + 1;
            return siblings.children[place];
        }
        *guess = siblings.children.len() + 1;
        self.new_child(parent, key)
    }

    fn new_child(&mut self, parent: u32, key: &str) -> u32 {
        let number = self.shapes.len() as u32;
        let above = &self.shapes[parent as usize];
        let is_reached = above.depth == 0 || (!above.path.is_empty() && above.path.len() <= MAX_NAME_BYTES);
        let path = match above.depth {
            0 => key.to_owned(),
            _ if is_reached => format!("{}.{key}", above.path),
            _ => String::new(),
        };
        let bits = self.names.iter().filter(|(name, _)| is_reached && *name == path).map(|(_, bit)| bit);
        let shape = Shape {
            key: key.into(),
            depth: above.depth + 1,
            roles: bits.fold(0, |all, bit| all | bit),
            is_known: known(Names::Any, &path).is_some(),
            is_name: !path.is_empty() && path.len() <= MAX_NAME_BYTES,
            path: path.into_boxed_str(),
            last: (u64::MAX, 0),
            ..Shape::default()
        };
        self.shapes.push(shape);
        let children = &mut self.shapes[parent as usize].children;
        children.push(number);
        if children.len() > FEW {
            let children = children.clone();
            let places = if children.len() == FEW + 1 {
                0..children.len()
            } else {
                children.len() - 1..children.len()
            };
            for place in places {
                let key = self.shapes[children[place] as usize].key.clone();
                self.shapes[parent as usize].by_key.insert(key, place as u32);
            }
        }
        number
    }
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Place {
    shape: u32,
    parent: u32,
    is_in_list: bool,
    nested: usize,
}

struct Parser<'t, 'a> {
    tree: &'t mut Tree<'a>,
    text: &'a str,
    at: usize,
    /// Whether there are bytes that must not stand within quotes.
    has_controls: bool,
    values: usize,
}

impl<'a> Parser<'_, 'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Malformed> {
        self.skip_spaces();
        if self.peek() != Some(byte) {
            return Err(Malformed::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    fn count(&mut self) -> Result<(), Malformed> {
        self.values += 1;
        if self.values > MAX_VALUES { Err(Malformed::TooMany) } else { Ok(()) }
    }

    /// Reads a value where it begins; answers its number.
    fn value(&mut self, place: Place) -> Result<u32, Malformed> {
        let number = self.tree.nodes.len() as u32;
        let node = |held| Node { shape: place.shape, size: 1, parent: place.parent, is_gone: false, held };
        let held = match self.peek() {
            Some(b'"') => Held::Text(self.string()?),
            Some(b'{') => {
                self.tree.nodes.push(node(Held::Object));
                self.members(number, place)?;
                self.tree.nodes[number as usize].size = self.tree.nodes.len() as u32 - number;
                return Ok(number);
            }
            Some(b'[') => {
                self.tree.nodes.push(node(Held::List));
                self.items(number, place)?;
                self.tree.nodes[number as usize].size = self.tree.nodes.len() as u32 - number;
                return Ok(number);
            }
            Some(b't') => self.word("true", Held::Bool(true))?,
            Some(b'f') => self.word("false", Held::Bool(false))?,
            Some(b'n') => self.word("null", Held::Null)?,
            _ => Held::Number(self.number()?),
        };
        self.tree.nodes.push(node(held));
        Ok(number)
    }

    fn word(&mut self, word: &str, held: Held<'a>) -> Result<Held<'a>, Malformed> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(Malformed::Syntax);
        }
        self.at += word.len();
        Ok(held)
    }

    fn members(&mut self, object: u32, place: Place) -> Result<(), Malformed> {
        let nested = place.nested + 1;
        if nested > MAX_NESTED {
            return Err(Malformed::Syntax);
        }
        self.tree.deepest = self.tree.deepest.max(nested);
        self.at += 1;
        self.count()?;
        self.skip_spaces();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        self.tree.objects += 1;
        let stamp = self.tree.objects;
        let mut guess = 0;
        loop {
            self.skip_spaces();
            if self.peek() != Some(b'"') {
                return Err(Malformed::Syntax);
            }
            let key = self.string()?;
            self.expect(b':')?;
            self.skip_spaces();
            let shape = self.tree.child(place.shape, &key, &mut guess);
            let node = self.value(Place { shape, parent: object, nested, ..place })?;
            self.enter(node, shape, stamp, place.is_in_list);
            self.skip_spaces();
            self.at += 1;
            match self.text.as_bytes().get(self.at - 1) {
                Some(b',') => self.count()?,
                Some(b'}') => return Ok(()),
                _ => return Err(Malformed::Syntax),
            }
        }
    }

    /// Takes note of a member whose name means something.
    fn enter(&mut self, node: u32, number: u32, stamp: u64, is_in_list: bool) {
        let shape = &mut self.tree.shapes[number as usize];
        let (last, before) = std::mem::replace(&mut shape.last, (stamp, node));
        let (roles, may_offer) = (shape.roles, shape.is_known && shape.depth <= OFFERED_DEPTH);
        if last == stamp {
            self.tree.forget(before);
        }
        if is_in_list {
            return;
        }
        if roles > 0 {
            self.tree.found.push((roles, node));
        }
        if may_offer && matches!(self.tree.node(node).held, Held::Text(_)) {
            self.tree.offered.push(node);
        }
    }

    fn items(&mut self, list: u32, place: Place) -> Result<(), Malformed> {
        let nested = place.nested + 1;
        if nested > MAX_NESTED {
            return Err(Malformed::Syntax);
        }
        self.tree.deepest = self.tree.deepest.max(nested);
        self.at += 1;
        self.count()?;
        self.skip_spaces();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.skip_spaces();
            self.value(Place { shape: place.shape, parent: list, is_in_list: true, nested })?;
            self.skip_spaces();
            self.at += 1;
            match self.text.as_bytes().get(self.at - 1) {
                Some(b',') => self.count()?,
                Some(b']') => return Ok(()),
                _ => return Err(Malformed::Syntax),
            }
        }
    }

    fn number(&mut self) -> Result<Number, Malformed> {
        let bytes = &self.text.as_bytes()[self.at..];
        let is_part = |byte: &&u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
        let length = bytes.iter().take_while(is_part).count();
        let text = &self.text[self.at..self.at + length];
        self.at += length;
        // Nineteen digits may be more than there is room for, and a zero at the beginning is an error.
        let is_small = length <= 18 && matches!(bytes.first(), Some(b'1'..=b'9'));
        if is_small && let Ok(whole) = text.parse::<u64>() {
            return Ok(whole.into());
        }
        serde_json::from_str(text).map_err(|_| Malformed::Syntax)
    }

    /// The text that begins with a quote here.
    fn string(&mut self) -> Result<Cow<'a, str>, Malformed> {
        let start = self.at + 1;
        let rest = &self.text.as_bytes()[start..];
        let plain = memchr::memchr2(b'"', b'\\', rest).ok_or(Malformed::Syntax)?;
        let text = self.plain(start, start + plain)?;
        if rest[plain] == b'"' {
            self.at = start + plain + 1;
            return Ok(Cow::Borrowed(text));
        }
        let mut out = String::with_capacity((2 * plain).clamp(256, 4096).min(rest.len()));
        out.push_str(text);
        self.at = start + plain;
        loop {
            self.at += 1;
            out.push(self.escaped()?);
            let start = self.at;
            let rest = &self.text.as_bytes()[start..];
            let plain = memchr::memchr2(b'"', b'\\', rest).ok_or(Malformed::Syntax)?;
            out.push_str(self.plain(start, start + plain)?);
            self.at = start + plain;
            if rest[plain] == b'"' {
                self.at += 1;
                return Ok(Cow::Owned(out));
            }
        }
    }

    fn plain(&self, start: usize, end: usize) -> Result<&'a str, Malformed> {
        let text = &self.text[start..end];
        if self.has_controls && text.bytes().any(|byte| byte < 0x20) {
            Err(Malformed::Syntax)
        } else {
            Ok(text)
        }
    }

    /// The character behind a backslash.
    fn escaped(&mut self) -> Result<char, Malformed> {
        let kind = self.peek().ok_or(Malformed::Syntax)?;
        self.at += 1;
        Ok(match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => return self.unicode(),
            _ => return Err(Malformed::Syntax),
        })
    }

    /// The character of four hexadecimal digits, or of two such where the first is half of one.
    fn unicode(&mut self) -> Result<char, Malformed> {
        let first = self.hexadecimal()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or(Malformed::Syntax);
        }
        if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            return Err(Malformed::Syntax);
        }
        self.at += 2;
        let second = self.hexadecimal()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(Malformed::Syntax);
        }
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or(Malformed::Syntax)
    }

    fn hexadecimal(&mut self) -> Result<u32, Malformed> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(Malformed::Syntax)?;
        self.at += 4;
        digits.iter().try_fold(0, |all, digit| {
            let digit = char::from(*digit).to_digit(16).ok_or(Malformed::Syntax)?;
            Ok(all << 4 | digit)
        })
    }
}
