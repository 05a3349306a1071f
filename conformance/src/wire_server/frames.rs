//! Frames after set-up: everything a server must check before it acts, and what it must not mind.

use std::time::{Duration, Instant};

use memkv_wire::checksum;
use memkv_wire::frame::{Header, Kind};
use memkv_wire::limits::{CONTROL_SIZE_BYTES_MAX, PAYLOAD_SIZE_BYTES_MAX};
use memkv_wire::{List, Ping, Request, RequestWhich, Write};
use zerocopy::IntoBytes as _;

use super::calls::{expect_absent, expect_value, piece, store, write};
use super::{Server, ping};
use crate::case::{Case, Outcome};
use crate::ensure;
use crate::peer::frame::Frame;
use crate::peer::session::Session;

pub const CASES: &[Case<Server>] = &[
    Case::must("SRV-FRAME-1", &["MKV-FRAME-1"], "frames may come byte by byte and many at once", any_cut),
    Case::must("SRV-FRAME-2", &["MKV-FRAME-2"], "another magic closes", magic),
    Case::must("SRV-FRAME-3", &["MKV-FRAME-5"], "a MAC that does not hold closes", mac),
    Case::must("SRV-FRAME-4", &["MKV-FRAME-5"], "a changed control message closes", changed_control),
    Case::must("SRV-FRAME-5", &["MKV-CONN-3"], "any other sequence number closes", sequence),
    Case::must("SRV-FRAME-6", &["MKV-FRAME-4"], "credits on a stream close", credits),
    Case::must("SRV-FRAME-7", &["MKV-FRAME-7"], "unknown flags are ignored", flags),
    Case::must("SRV-FRAME-8", &["MKV-FRAME-8"], "other kinds close", kinds),
    Case::must(
        "SRV-FRAME-9",
        &["MKV-FRAME-6"],
        "a tag that does not hold closes, and nothing is visible",
        tag,
    ),
    Case::must(
        "SRV-FRAME-10",
        &["MKV-FRAME-6"],
        "a changed payload closes, and nothing is visible",
        changed_payload,
    ),
    Case::must("SRV-FRAME-11", &["MKV-LIM-1"], "a length beyond its limit closes at once", lengths),
    Case::must(
        "SRV-FRAME-12",
        &["MKV-FRAME-3", "MKV-FRAME-5"],
        "the MAC is checked before the version",
        version,
    ),
    Case::must(
        "SRV-FRAME-13",
        &["MKV-CONN-3"],
        "sequence numbers rise by one, in both directions",
        many_frames,
    ),
];

fn ping_frame(session: &mut Session) -> Frame {
    let id = session.new_id();
    session.frame(id, true, &Request { namespace: &[], which: RequestWhich::Ping(Ping::default()) }, &[])
}

/// A frame that is signed after it was changed: only the change can be what is wrong.
fn expect_refused(server: &Server, what: &str, change: impl FnOnce(&mut Frame)) -> Outcome {
    let mut session = server.connect()?;
    ping(&mut session, 7)?;
    let mut frame = ping_frame(&mut session);
    change(&mut frame);
    session.sign(&mut frame);
    session.send_hostile(&frame.bytes());
    session.expect_closed(what)
}

fn any_cut(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    let (namespace, data) = (server.namespace(), server.random().bytes(3000));
    let sum = checksum::block(&data);
    let pieces = [piece(0, 0, &data, Some(&sum))];
    let which = RequestWhich::Write(Write { pieces: List::from(&pieces), ..write(b"key", &data) });
    let id = session.new_id();
    let frame = session.frame(id, true, &Request { namespace: &namespace, which }, &data);
    for byte in frame.bytes() {
        session.send_hostile(&[byte]);
    }
    session.replies(id, which.operation())?;
    expect_value(&mut session, &namespace, b"key", &data)?;
    let frames: Vec<Frame> = (0..20).map(|_| ping_frame(&mut session)).collect();
    let together: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
    session.send_hostile(&together);
    let mut answered: Vec<u32> = Vec::new();
    while answered.len() < frames.len() {
        let Some(reply) = session.next_reply()? else {
            crate::fail!("it closed after {} replies", answered.len())
        };
        answered.push(reply.id);
    }
    answered.sort_unstable();
    let sent: Vec<u32> = frames.iter().map(|frame| frame.header.id.get()).collect();
    ensure!(answered == sent, "requests {sent:?} were answered as {answered:?}");
    Ok(())
}

fn magic(server: &Server) -> Outcome {
    for magic in [0, 0x3256_4b4d, 0x314b_564d, u32::MAX] {
        expect_refused(server, "another magic", |frame| frame.header.magic = magic.into())?;
    }
    server.expect_alive()
}

fn mac(server: &Server) -> Outcome {
    for at in [0, 1, 15, 16, 30, 31] {
        let mut session = server.connect()?;
        let mut frame = ping_frame(&mut session);
        frame.header.mac[at] ^= 0x80;
        session.send_hostile(&frame.bytes());
        session.expect_closed("a wrong MAC")?;
    }
    // Made with a key of the other direction, with the shared key, and not at all.
    let mut session = server.connect()?;
    let mut frame = ping_frame(&mut session);
    frame.sign_control(&session.back.mac);
    session.send_hostile(&frame.bytes());
    session.expect_closed("a MAC of the other direction")?;
    let mut session = server.connect()?;
    let mut frame = ping_frame(&mut session);
    frame.sign_control(&server.key.connect_mac());
    session.send_hostile(&frame.bytes());
    session.expect_closed("a MAC made with the shared key")?;
    let mut session = server.connect()?;
    let mut frame = ping_frame(&mut session);
    frame.header.mac = [0; 32];
    session.send_hostile(&frame.bytes());
    session.expect_closed("no MAC")?;
    server.expect_alive()
}

fn changed_control(server: &Server) -> Outcome {
    let mut random = server.random();
    for _ in 0..8 {
        let mut session = server.connect()?;
        let mut frame = ping_frame(&mut session);
        let at = random.below(frame.control.len());
        frame.control[at] ^= 1 << random.below(8);
        session.send_hostile(&frame.bytes());
        session.expect_closed("a changed control message")?;
    }
    // The header's own fields are under the MAC too.
    type Change = fn(&mut Header);
    let changes: [Change; 3] = [
        |header| header.id = 77.into(),
        |header| header.flags = 0.into(),
        |header| header.sequence = 3.into(),
    ];
    for change in changes {
        let mut session = server.connect()?;
        let mut frame = ping_frame(&mut session);
        change(&mut frame.header);
        session.send_hostile(&frame.bytes());
        session.expect_closed("a changed header")?;
    }
    server.expect_alive()
}

fn sequence(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    ping(&mut session, 1)?;
    let next = session.out.sequence;
    drop(session);
    for sequence in [0, 1, next - 1, next + 1, next + 1000, u64::MAX] {
        expect_refused(server, &format!("sequence {sequence} instead of {next}"), |frame| {
            frame.header.sequence = sequence.into();
        })?;
    }
    // The same frame twice.
    let mut session = server.connect()?;
    let frame = ping_frame(&mut session);
    session.send(&frame)?;
    session.next_reply()?;
    session.send_hostile(&frame.bytes());
    session.expect_closed("the same frame twice")?;
    server.expect_alive()
}

fn credits(server: &Server) -> Outcome {
    for credits in [1, 0xffff_ffff] {
        expect_refused(server, "credits on a stream", |frame| frame.header.credits = credits.into())?;
    }
    server.expect_alive()
}

fn flags(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    for flags in [0x0003, 0x8001, 0xffff] {
        let mut frame = ping_frame(&mut session);
        frame.header.flags = flags.into();
        session.sign(&mut frame);
        session.send(&frame)?;
        session.replies(frame.header.id.get(), None)?;
    }
    Ok(())
}

fn kinds(server: &Server) -> Outcome {
    for kind in [0, Kind::Hello.code(), Kind::Response.code(), 4, 0x82, 255] {
        expect_refused(server, &format!("a frame of kind {kind}"), |frame| frame.header.kind = kind)?;
    }
    server.expect_alive()
}

/// Writes a value whose frame is spoilt after it was signed, and expects that nothing of it is there.
fn expect_invisible(server: &Server, what: &str, spoil: impl FnOnce(&mut Frame)) -> Outcome {
    let (namespace, data) = (server.namespace(), server.random().bytes(70_000));
    let mut session = server.connect()?;
    // Without checksums: only the tag protects the bytes.
    let pieces = [piece(0, 0, &data, None)];
    let which = RequestWhich::Write(Write { pieces: List::from(&pieces), ..write(b"spoilt", &data) });
    let id = session.new_id();
    let mut frame = session.frame(id, true, &Request { namespace: &namespace, which }, &data);
    spoil(&mut frame);
    session.send_hostile(&frame.bytes());
    session.expect_closed(what)?;
    expect_absent(&mut server.connect()?, &namespace, b"spoilt")
}

fn tag(server: &Server) -> Outcome {
    for at in [0, 15, 16, 31] {
        expect_invisible(server, "a wrong tag", |frame| frame.tag[at] ^= 1)?;
    }
    let mut session = server.connect()?;
    let data = server.random().bytes(5000);
    let pieces = [piece(0, 0, &data, None)];
    let which = RequestWhich::Write(Write { pieces: List::from(&pieces), ..write(b"other", &data) });
    let mut frame = session.frame(50, true, &Request { namespace: &server.namespace(), which }, &data);
    frame.tag = session.back.bulk.tag(&[frame.header.as_bytes(), &data]);
    session.send_hostile(&frame.bytes());
    session.expect_closed("a tag of the other direction")?;
    expect_absent(&mut server.connect()?, &server.namespace(), b"other")
}

fn changed_payload(server: &Server) -> Outcome {
    for at in [0, 1, 4095, 35_000, 69_999] {
        expect_invisible(server, "a changed payload", |frame| frame.payload[at] ^= 1)?;
    }
    server.expect_alive()
}

fn lengths(server: &Server) -> Outcome {
    let words_max = CONTROL_SIZE_BYTES_MAX / 8;
    for (what, control_words, payload_length) in [
        ("a control message of 1 word too many", words_max + 1, 0),
        ("a control message of 32 GiB", u32::MAX, 0),
        ("a payload of 1 byte too many", 8, PAYLOAD_SIZE_BYTES_MAX + 1),
        ("a payload of 4 GiB", 8, u32::MAX),
    ] {
        let mut session = server.connect()?;
        let mut frame = ping_frame(&mut session);
        frame.header.control_words = control_words.into();
        frame.header.payload_length = payload_length.into();
        frame.header.mac = session.out.mac.tag(&[frame.header.signed_bytes()]);
        session.send_hostile(frame.header.as_bytes());
        let begun = Instant::now();
        session.expect_closed(what)?;
        ensure!(begun.elapsed() < Duration::from_secs(4), "{what} was waited for");
    }
    let mut session = server.connect()?;
    let data = server.random().bytes(PAYLOAD_SIZE_BYTES_MAX as usize);
    store(&mut session, &server.namespace(), b"longest", &data)?;
    expect_value(&mut session, &server.namespace(), b"longest", &data)
}

fn version(server: &Server) -> Outcome {
    for version in [0, 2, 255] {
        // Signed: of another version than was agreed on. Not signed: changed on the way.
        expect_refused(server, "a frame of another version", |frame| frame.header.version = version)?;
        let mut session = server.connect()?;
        let mut frame = ping_frame(&mut session);
        frame.header.version = version;
        session.send_hostile(&frame.bytes());
        session.expect_closed("a frame whose version was changed")?;
    }
    server.expect_alive()
}

fn many_frames(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    for echo in 0..500 {
        ping(&mut session, echo)?;
    }
    Ok(())
}
