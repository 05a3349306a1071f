//! Cap'n Proto's own implementation reads what we write, and we read what it writes.

use capnp::dynamic_value::Reader as Dynamic;
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions, SegmentArray};
use capnp::{dynamic_list, dynamic_struct};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::{Event, Events, ROOTS, Root};
use crate::{manifest_capnp, ops_capnp};

const OPTIONS: ReaderOptions = ReaderOptions { traversal_limit_in_words: Some(1 << 26), nesting_limit: 16 };

/// What [`Root::events`] tells, read by capnp.
fn events(root: Root, control: &[u8]) -> capnp::Result<Events> {
    let words = aligned(control);
    let segments = [&words[..]];
    let message = Reader::new(SegmentArray::new(&segments), OPTIONS);
    let value: Dynamic<'_> = match root {
        Root::Request => message.get_root::<ops_capnp::request::Reader<'_>>()?.into(),
        Root::Response => message.get_root::<ops_capnp::response::Reader<'_>>()?.into(),
        Root::Manifest => message.get_root::<manifest_capnp::manifest::Reader<'_>>()?.into(),
    };
    let mut events = Vec::new();
    tell(format!("{root:?}"), value, &mut events)?;
    Ok(Events(events))
}

/// A copy whose bytes begin on a word.
fn aligned(control: &[u8]) -> Vec<u8> {
    let copy = control.to_vec();
    assert!(copy.as_ptr().align_offset(8) == 0, "the allocator aligns blocks of this size");
    copy
}

fn tell(name: String, value: Dynamic<'_>, events: &mut Vec<Event>) -> capnp::Result<()> {
    events.push(match value {
        Dynamic::Void => return Ok(()),
        Dynamic::Bool(value) => Event::Bool(name, value),
        Dynamic::UInt8(value) => Event::Unsigned(name, value.into()),
        Dynamic::UInt16(value) => Event::Unsigned(name, value.into()),
        Dynamic::UInt32(value) => Event::Unsigned(name, value.into()),
        Dynamic::UInt64(value) => Event::Unsigned(name, value),
        Dynamic::Int8(value) => Event::Signed(name, value.into()),
        Dynamic::Int16(value) => Event::Signed(name, value.into()),
        Dynamic::Int32(value) => Event::Signed(name, value.into()),
        Dynamic::Int64(value) => Event::Signed(name, value),
        Dynamic::Enum(value) => Event::Enum(name, value.get_value()),
        Dynamic::Text(value) => Event::Text(name, value.to_string()?),
        Dynamic::Data(value) => Event::Data(name, value.to_vec()),
        Dynamic::Struct(value) => return tell_struct(name, value, events),
        Dynamic::List(value) => return tell_list(name, value, events),
        other => {
            panic!("{name} has a kind that the schema does not use: {:?}", std::mem::discriminant(&other))
        }
    });
    Ok(())
}

fn tell_struct(
    name: String,
    value: dynamic_struct::Reader<'_>,
    events: &mut Vec<Event>,
) -> capnp::Result<()> {
    events.push(Event::Enter(name));
    for field in value.get_schema().get_non_union_fields()? {
        tell(field.get_proto().get_name()?.to_string()?, value.get(field)?, events)?;
    }
    match value.which() {
        Ok(Some(field)) => {
            let name = field.get_proto().get_name()?.to_string()?;
            events.push(Event::Arm(name.clone()));
            tell(name, value.get(field)?, events)?;
        }
        Ok(None) if value.get_schema().get_union_fields()?.is_empty() => {}
        Ok(None) | Err(_) => events.push(Event::Arm("unknown".into())),
    }
    events.push(Event::Leave);
    Ok(())
}

fn tell_list(name: String, value: dynamic_list::Reader<'_>, events: &mut Vec<Event>) -> capnp::Result<()> {
    events.push(Event::EnterList(name.clone(), value.len() as usize));
    for item in value.iter() {
        tell(name.clone(), item?, events)?;
    }
    events.push(Event::LeaveList);
    Ok(())
}

/// The message as capnp's builder writes it: objects in another order, or in canonical form, whose structs have lost
/// their trailing zeros.
fn rebuilt(root: Root, control: &[u8], canonical: bool) -> Vec<u8> {
    let words = aligned(control);
    let segments = [&words[..]];
    let message = Reader::new(SegmentArray::new(&segments), OPTIONS);
    let room = u32::try_from(control.len()).unwrap();
    let mut builder = Builder::new(HeapAllocator::new().first_segment_words(room));
    macro_rules! copy {
        ($reader:ty) => {{
            let reader = message.get_root::<$reader>().unwrap();
            if canonical { builder.set_root_canonical(reader) } else { builder.set_root(reader) }.unwrap()
        }};
    }
    match root {
        Root::Request => copy!(ops_capnp::request::Reader<'_>),
        Root::Response => copy!(ops_capnp::response::Reader<'_>),
        Root::Manifest => copy!(manifest_capnp::manifest::Reader<'_>),
    }
    let segments = builder.get_segments_for_output();
    assert_eq!(segments.len(), 1);
    segments[0].to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn capnp_reads_what_we_write(bytes in vec(any::<u8>(), 0..2048)) {
        for root in ROOTS {
            let buf = root.drawn(&bytes);
            prop_assert_eq!(events(root, buf.control()).unwrap(), root.events(buf.control()).unwrap());
        }
    }

    #[test]
    fn we_read_what_capnp_writes(bytes in vec(any::<u8>(), 0..2048), canonical: bool) {
        for root in ROOTS {
            let buf = root.drawn(&bytes);
            let rebuilt = rebuilt(root, buf.control(), canonical);
            prop_assert_eq!(root.events(&rebuilt).unwrap(), root.events(buf.control()).unwrap());
        }
    }

    /// Whatever we accept of a damaged message, capnp accepts, and reads the same in it.
    #[test]
    fn we_accept_nothing_that_capnp_reads_differently(
        bytes in vec(any::<u8>(), 0..1024),
        flips in vec(any::<Index>(), 1..4),
    ) {
        for root in ROOTS {
            let mut control = root.drawn(&bytes).control().to_vec();
            for flip in &flips {
                let bit = flip.index(control.len() * 8);
                control[bit / 8] ^= 1 << (bit % 8);
            }
            if let Ok(ours) = root.events(&control) {
                prop_assert_eq!(events(root, &control).unwrap(), ours);
            }
        }
    }
}
