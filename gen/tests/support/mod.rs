//! Messages drawn from bytes, and messages as flat lists of what a visitor is told.

use memkv_wire::arbitrary::{self, Arena};
use memkv_wire::{
    ControlBuf, DecodeError, EncodeError, Manifest, Message, Request, Response, Value, Visitor,
};

/// The three kinds of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    Request,
    Response,
    Manifest,
}

pub const ROOTS: [Root; 3] = [Root::Request, Root::Response, Root::Manifest];

impl Root {
    /// A message drawn from `bytes`.
    pub fn drawn(self, bytes: &[u8]) -> ControlBuf {
        let mut buf = ControlBuf::new();
        let u = &mut ::arbitrary::Unstructured::new(bytes);
        let drawn = match self {
            Root::Request => arbitrary::request(u, &mut buf),
            Root::Response => arbitrary::response(u, &mut buf),
            Root::Manifest => arbitrary::manifest(u, &mut buf),
        };
        drawn.expect("whatever is drawn can be encoded");
        buf
    }

    /// What a visitor is told of a message.
    pub fn events(self, control: &[u8]) -> Result<Events, DecodeError> {
        let message = Message::new(control)?;
        let mut events = Events::default();
        match self {
            Root::Request => Request::decode(&message)?.visit(&mut events),
            Root::Response => Response::decode(&message)?.visit(&mut events),
            Root::Manifest => Manifest::decode(&message)?.visit(&mut events),
        }
        Ok(events)
    }

    /// Decodes, and encodes what came out; `None` when that is longer than a message may be.
    pub fn reencoded(self, control: &[u8]) -> Result<Option<ControlBuf>, DecodeError> {
        let message = Message::new(control)?;
        let mut buf = ControlBuf::new();
        let encoded = match self {
            Root::Request => Request::decode(&message)?.encode(&mut buf),
            Root::Response => Response::decode(&message)?.encode(&mut buf),
            Root::Manifest => Manifest::decode(&message)?.encode(&mut buf),
        };
        match encoded {
            Ok(()) => Ok(Some(buf)),
            Err(EncodeError::TooLong { .. }) => Ok(None),
            Err(error) => panic!("what was decoded broke a bound when it was encoded: {error}"),
        }
    }

    /// Decodes and says only whether that went well: nothing here allocates.
    pub fn decodes(self, control: &[u8]) -> bool {
        let Ok(message) = Message::new(control) else { return false };
        match self {
            Root::Request => Request::decode(&message).is_ok(),
            Root::Response => Response::decode(&message).is_ok(),
            Root::Manifest => Manifest::decode(&message).is_ok(),
        }
    }

    /// A view drawn into an arena equals what comes back from the wire.
    pub fn assert_round_trip(self, bytes: &[u8]) {
        let (arena, mut buf) = (Arena::new(), ControlBuf::new());
        let u = &mut ::arbitrary::Unstructured::new(bytes);
        match self {
            Root::Request => {
                let drawn = arbitrary::draw_request(u, &arena).unwrap();
                drawn.encode(&mut buf).unwrap();
                assert_eq!(Request::decode(&buf.message().unwrap()), Ok(drawn));
            }
            Root::Response => {
                let drawn = arbitrary::draw_response(u, &arena).unwrap();
                drawn.encode(&mut buf).unwrap();
                assert_eq!(Response::decode(&buf.message().unwrap()), Ok(drawn));
            }
            Root::Manifest => {
                let drawn = arbitrary::draw_manifest(u, &arena).unwrap();
                drawn.encode(&mut buf).unwrap();
                assert_eq!(Manifest::decode(&buf.message().unwrap()), Ok(drawn));
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Enter(String),
    Leave,
    EnterList(String, usize),
    LeaveList,
    Arm(String),
    Bool(String, bool),
    Unsigned(String, u64),
    Signed(String, i64),
    /// Absent data is empty data on the wire.
    Data(String, Vec<u8>),
    Text(String, String),
    Enum(String, u16),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events(pub Vec<Event>);

impl Visitor for Events {
    fn enter(&mut self, name: &'static str) {
        self.0.push(Event::Enter(name.into()));
    }

    fn leave(&mut self, _: &'static str) {
        self.0.push(Event::Leave);
    }

    fn enter_list(&mut self, name: &'static str, len: usize) {
        self.0.push(Event::EnterList(name.into(), len));
    }

    fn leave_list(&mut self, _: &'static str) {
        self.0.push(Event::LeaveList);
    }

    fn arm(&mut self, name: &'static str, _: u16) {
        self.0.push(Event::Arm(name.into()));
    }

    fn field(&mut self, name: &'static str, value: Value<'_>) {
        let name = name.to_owned();
        self.0.push(match value {
            Value::Bool(value) => Event::Bool(name, value),
            Value::Unsigned(value) => Event::Unsigned(name, value),
            Value::Signed(value) => Event::Signed(name, value),
            Value::Data(value) => Event::Data(name, value.to_vec()),
            Value::Absent => Event::Data(name, Vec::new()),
            Value::Text(value) => Event::Text(name, value.to_owned()),
            Value::Enum { code, .. } => Event::Enum(name, code),
        });
    }
}
