//! The types of PostgreSQL that have a JSON form here; both directions go by this list.

use postgres::types::{Kind, Type};

/// How a type looks on the wire, in the binary format. A type that is not here needs a cast in the SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Boolean,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    /// text, varchar, char(n), name, citext, and the labels of an enum.
    Text,
    Json,
    Jsonb,
    Date,
    Time,
    Timestamp,
    TimestampWithZone,
    Uuid,
}

/// How many domains over domains are followed.
const MAX_DOMAIN_DEPTH: usize = 16;

impl Shape {
    /// A domain has the shape of what it restricts.
    pub(super) fn of(kind: &Type) -> Option<Shape> {
        let mut kind = kind;
        for _ in 0..MAX_DOMAIN_DEPTH {
            match kind.kind() {
                Kind::Domain(inner) => kind = inner,
                Kind::Enum(_) => return Some(Shape::Text),
                _ => break,
            }
        }
        match *kind {
            Type::BOOL => Some(Shape::Boolean),
            Type::INT2 => Some(Shape::Int2),
            Type::INT4 => Some(Shape::Int4),
            Type::INT8 => Some(Shape::Int8),
            Type::OID => Some(Shape::Oid),
            Type::FLOAT4 => Some(Shape::Float4),
            Type::FLOAT8 => Some(Shape::Float8),
            Type::NUMERIC => Some(Shape::Numeric),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN => Some(Shape::Text),
            Type::JSON => Some(Shape::Json),
            Type::JSONB => Some(Shape::Jsonb),
            Type::DATE => Some(Shape::Date),
            Type::TIME => Some(Shape::Time),
            Type::TIMESTAMP => Some(Shape::Timestamp),
            Type::TIMESTAMPTZ => Some(Shape::TimestampWithZone),
            Type::UUID => Some(Shape::Uuid),
            // An extension's type has no fixed number.
            _ if kind.name() == "citext" => Some(Shape::Text),
            _ => None,
        }
    }
}
