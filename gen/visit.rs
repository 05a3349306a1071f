//! Walking a message field by field, for those who treat all messages alike: vectors, fuzzers, logs.
//!
//! The generated `visit` methods name every field of the schema, in its order, so that none can be forgotten.

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Data(&'a [u8]),
    Text(&'a str),
    /// An enum's code, and its name or `unknown`.
    Enum {
        name: &'static str,
        code: u16,
    },
    /// Optional data that is not there.
    Absent,
}

/// Is told of every struct, list and field, outer ones first. Elements of lists have the list's name.
pub trait Visitor {
    /// A struct, in the field `name`, or the message's root of that name.
    fn enter(&mut self, name: &'static str);
    fn leave(&mut self, name: &'static str);
    fn enter_list(&mut self, name: &'static str, len: usize);
    fn leave_list(&mut self, name: &'static str);
    /// The arm of a union; its value follows, if it has one.
    fn arm(&mut self, name: &'static str, discriminant: u16);
    fn field(&mut self, name: &'static str, value: Value<'_>);
}

/// A field of the schema, or an element of a list.
pub(crate) trait Visit {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V);
}

macro_rules! visit_integers {
    ($($name:ident as $variant:ident),*) => {$(
        impl Visit for $name {
            fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
                visitor.field(name, Value::$variant((*self).into()));
            }
        }
    )*};
}

visit_integers!(u8 as Unsigned, u16 as Unsigned, u32 as Unsigned, u64 as Unsigned);
visit_integers!(i8 as Signed, i16 as Signed, i32 as Signed, i64 as Signed);

impl Visit for bool {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.field(name, Value::Bool(*self));
    }
}

impl Visit for &str {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.field(name, Value::Text(self));
    }
}

impl Visit for &[u8] {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.field(name, Value::Data(self));
    }
}

impl<const N: usize> Visit for &[u8; N] {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.field(name, Value::Data(*self));
    }
}

impl<T: Visit> Visit for Option<T> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        match self {
            Some(value) => value.visit_as(name, visitor),
            None => visitor.field(name, Value::Absent),
        }
    }
}

impl<'a, T: crate::list::Element<'a> + Visit> Visit for crate::List<'a, T> {
    fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {
        visitor.enter_list(name, self.len());
        for item in self {
            item.visit_as(name, visitor);
        }
        visitor.leave_list(name);
    }
}
