//! Control messages: any bytes as a request or a response, walked field by field, and written again.

use arbitrary::Unstructured;
use memkv_wire::arbitrary::{Arena, draw_request, draw_response};
use memkv_wire::{ControlBuf, EncodeError, Message, Request, Response, Value, Visitor};

/// The first byte says what the others are: a request's or a response's bytes, or what one is drawn from.
pub fn run(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let words = &rest[..rest.len() / 8 * 8];
    match mode % 4 {
        0 => request(words),
        1 => response(words),
        2 => {
            let (arena, mut buf) = (Arena::new(), ControlBuf::new());
            let Ok(drawn) = draw_request(&mut Unstructured::new(rest), &arena) else { return };
            drawn.encode(&mut buf).expect("what is drawn can be encoded");
            let message = buf.message().expect("what was encoded is a message");
            assert_eq!(Request::decode(&message), Ok(drawn));
            request(buf.control());
        }
        _ => {
            let (arena, mut buf) = (Arena::new(), ControlBuf::new());
            let Ok(drawn) = draw_response(&mut Unstructured::new(rest), &arena) else { return };
            drawn.encode(&mut buf).expect("what is drawn can be encoded");
            let message = buf.message().expect("what was encoded is a message");
            assert_eq!(Response::decode(&message), Ok(drawn));
            response(buf.control());
        }
    }
}

fn request(control: &[u8]) {
    let Ok(message) = Message::new(control) else { return };
    let Ok(request) = Request::decode(&message) else { return };
    request.visit(&mut Walk::default());
    let mut buf = ControlBuf::new();
    if is_written(request.encode(&mut buf)) {
        let again = buf.message().expect("what was encoded is a message");
        assert_eq!(Request::decode(&again), Ok(request));
    }
}

fn response(control: &[u8]) {
    let Ok(message) = Message::new(control) else { return };
    let Ok(response) = Response::decode(&message) else { return };
    response.visit(&mut Walk::default());
    let mut buf = ControlBuf::new();
    if is_written(response.encode(&mut buf)) {
        let again = buf.message().expect("what was encoded is a message");
        assert_eq!(Response::decode(&again), Ok(response));
    }
}

/// What was decoded is within its bounds; pointers that share what they point at may make it longer when it is written.
fn is_written(encoded: Result<(), EncodeError>) -> bool {
    match encoded {
        Ok(()) => true,
        Err(EncodeError::TooLong { .. }) => false,
        Err(error) => panic!("what was decoded breaks a bound: {error}"),
    }
}

/// Looks at every byte of every field, and that what is entered is left.
#[derive(Default)]
pub struct Walk {
    within: Vec<&'static str>,
    sum: u64,
}

impl Walk {
    fn add(&mut self, bytes: &[u8]) {
        self.sum = bytes.iter().fold(self.sum, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    }
}

impl Visitor for Walk {
    fn enter(&mut self, name: &'static str) {
        self.within.push(name);
    }

    fn leave(&mut self, name: &'static str) {
        assert_eq!(self.within.pop(), Some(name));
    }

    fn enter_list(&mut self, name: &'static str, _len: usize) {
        self.within.push(name);
    }

    fn leave_list(&mut self, name: &'static str) {
        assert_eq!(self.within.pop(), Some(name));
    }

    fn arm(&mut self, _name: &'static str, discriminant: u16) {
        self.add(&discriminant.to_le_bytes());
    }

    fn field(&mut self, _name: &'static str, value: Value<'_>) {
        match value {
            Value::Bool(value) => self.add(&[value.into()]),
            Value::Unsigned(value) => self.add(&value.to_le_bytes()),
            Value::Signed(value) => self.add(&value.to_le_bytes()),
            Value::Data(bytes) => self.add(bytes),
            Value::Text(text) => self.add(text.as_bytes()),
            Value::Enum { code, .. } => self.add(&code.to_le_bytes()),
            Value::Absent => {}
        }
    }
}
