//! Set-up: what a server answers, and what it closes in silence.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::{Duration, Instant};

use memkv_wire::frame::{Header, Kind, VERSION};
use memkv_wire::limits::{HELLO_SIZE_BYTES_MAX, SETUP_CONNECTIONS_MAX, SETUP_TIMEOUT_MS};
use memkv_wire::mac::Key;
use memkv_wire::{BulkMac, Ping, Request, RequestWhich, Status};
use zerocopy::IntoBytes as _;

use super::calls::{expect_value, store};
use super::{Server, ping};
use crate::case::{Case, Outcome, Stop};
use crate::peer::frame::{Frame, ReadError};
use crate::peer::session::{Dialled, Session, Terms, connect_frame, dial, encode, expect_closed_in_silence};
use crate::{ensure, fail};

pub const CASES: &[Case<Server>] = &[
    Case::must("SRV-CONN-1", &["MKV-CONN-1"], "hmac-sha256 alone is enough", hmac_alone),
    Case::must("SRV-CONN-2", &["MKV-CONN-2"], "no two connections have the same nonce", nonces_differ),
    Case::must(
        "SRV-CONN-3",
        &["MKV-CONN-4", "MKV-FRAME-5"],
        "a Connect that is not signed is not answered",
        unsigned,
    ),
    Case::must("SRV-CONN-4", &["MKV-CONN-4"], "a Connect under an unknown key is not answered", unknown_key),
    Case::must("SRV-CONN-5", &["MKV-CONN-7"], "the client's order of bulk MACs decides", bulk_mac_order),
    Case::must(
        "SRV-CONN-6",
        &["MKV-CONN-9", "MKV-FRAME-3"],
        "a newer Connect is refused with a signed reply",
        newer,
    ),
    Case::must(
        "SRV-CONN-7",
        &["MKV-CONN-10"],
        "nothing but the confirmation may come first",
        no_confirmation,
    ),
    Case::must("SRV-CONN-8", &["MKV-CONN-10"], "a confirmation that is not right closes", wrong_confirmation),
    Case::must("SRV-CONN-9", &["MKV-CONN-10"], "a hello frame that comes later closes", later_hello),
    Case::must(
        "SRV-CONN-10",
        &["MKV-CONN-2", "MKV-CONN-10"],
        "a recorded connection cannot be replayed",
        replay,
    ),
    Case::must(
        "SRV-CONN-11",
        &["MKV-FRAME-8", "MKV-CONN-3"],
        "a first frame that is no Connect is not answered",
        no_connect,
    ),
    Case::must(
        "SRV-CONN-12",
        &["MKV-CONN-5", "MKV-LIM-1"],
        "a Connect that is too long closes at once",
        too_long,
    ),
    Case::must("SRV-CONN-13", &["MKV-CONN-5"], "set-up ends after its time", set_up_ends),
    Case::must("SRV-CONN-14", &["MKV-CONN-5"], "others are served beside hundreds in set-up", many_in_set_up)
        .alone(),
    Case::must("SRV-CONN-15", &["MKV-MSG-6"], "a Connect that breaks a bound is not answered", out_of_bounds),
    Case::must(
        "SRV-CONN-16",
        &["MKV-CONN-6"],
        "the reply is under the key that the Connect names",
        reply_key,
    ),
    Case::must(
        "SRV-CONN-17",
        &["MKV-CONN-7", "MKV-FRAME-6"],
        "values go both ways under every bulk MAC that the server speaks",
        every_bulk_mac,
    ),
];

/// More than the set-up may take, for a server that looks at its clock now and then.
const SETUP_PATIENCE: Duration = Duration::from_millis(SETUP_TIMEOUT_MS as u64 + 4000);

fn dialled(server: &Server, change: impl FnOnce(&mut Frame)) -> Outcome<Dialled> {
    Dialled::send(&server.target.address, &server.key, server.terms()?, change)
}

fn hmac_alone(server: &Server) -> Outcome {
    let terms = Terms { bulk_macs: vec![0], ..server.terms()? };
    let mut session = Session::open(&server.target.address, &server.key, terms)?;
    ensure!(session.answer.bulk_mac == 0, "bulk MAC {} was chosen", session.answer.bulk_mac);
    let data = server.random().bytes(300_000);
    store(&mut session, &server.namespace(), b"key", &data)?;
    expect_value(&mut session, &server.namespace(), b"key", &data)
}

fn nonces_differ(server: &Server) -> Outcome {
    let mut nonces = BTreeSet::new();
    for _ in 0..16 {
        let (answer, _) = dialled(server, |_| {})?.answer()?;
        ensure!(nonces.insert(answer.server_nonce), "two connections have the same nonce");
        ensure!(answer.server_nonce != [0; 32], "the nonce is all zeros");
    }
    Ok(())
}

fn unsigned(server: &Server) -> Outcome {
    let mut random = server.random();
    for at in [0, 7, 31] {
        let connect = dialled(server, |frame| frame.header.mac[at] ^= 1)?;
        expect_closed_in_silence(connect.stream, "a Connect with a wrong MAC")?;
    }
    for _ in 0..4 {
        let bit = random.below(8);
        let connect = dialled(server, |frame| {
            let at = random.below(frame.control.len());
            frame.control[at] ^= 1 << bit;
        })?;
        expect_closed_in_silence(connect.stream, "a Connect that was changed")?;
    }
    let other = Key::from_bytes([0x5a; 32]);
    let connect = dialled(server, |frame| frame.sign_control(&other.connect_mac()))?;
    expect_closed_in_silence(connect.stream, "a Connect signed with another key")?;
    server.expect_alive()
}

fn unknown_key(server: &Server) -> Outcome {
    let other = Key::from_bytes([0x5a; 32]);
    let connect = Dialled::send(&server.target.address, &other, server.terms()?, |_| {})?;
    expect_closed_in_silence(connect.stream, "a Connect under an unknown key")?;
    // The right MAC does not make up for the wrong id.
    let key = server.key.clone();
    let connect = dialled(server, |frame| {
        frame.header.id = (frame.header.id.get() ^ 1).into();
        frame.sign_control(&key.connect_mac());
    })?;
    expect_closed_in_silence(connect.stream, "a Connect with an unknown key id")?;
    server.expect_alive()
}

fn bulk_mac_order(server: &Server) -> Outcome {
    // Whether the server speaks the other one is its own affair; its order is the client's.
    let terms = Terms { bulk_macs: vec![1, 0], ..server.terms()? };
    let (answer, _) = Dialled::send(&server.target.address, &server.key, terms, |_| {})?.answer()?;
    let preferred = answer.bulk_mac;
    for (offered, expected) in [
        (vec![0, 1], 0),
        (vec![1, 0], preferred),
        (vec![999, 0], 0),
        (vec![999, 77, 1, 0], preferred),
        (vec![0, 0, 1], 0),
    ] {
        let terms = Terms { bulk_macs: offered.clone(), ..server.terms()? };
        let session = Session::open(&server.target.address, &server.key, terms)?;
        let chosen = session.answer.bulk_mac;
        ensure!(chosen == expected, "of {offered:?} bulk MAC {chosen} was chosen instead of {expected}");
    }
    Ok(())
}

fn every_bulk_mac(server: &Server) -> Outcome {
    for bulk_mac in BulkMac::ALL.iter().map(|mac| mac.code()) {
        let terms = Terms { bulk_macs: vec![bulk_mac, 0], ..server.terms()? };
        let mut session = Session::open(&server.target.address, &server.key, terms)?;
        let chosen = session.answer.bulk_mac;
        ensure!(chosen == bulk_mac || chosen == 0, "bulk MAC {chosen} was chosen, and not offered");
        let data = server.random().bytes(300_000);
        let key = [b"key", &bulk_mac.to_le_bytes()[..]].concat();
        store(&mut session, &server.namespace(), &key, &data)?;
        expect_value(&mut session, &server.namespace(), &key, &data)?;
    }
    Ok(())
}

fn newer(server: &Server) -> Outcome {
    for version in [VERSION + 1, 200, 255] {
        let key = server.key.clone();
        let mut connect = dialled(server, |frame| {
            frame.header.version = version;
            frame.sign_control(&key.connect_mac());
        })?;
        let (answer, _) = connect.answer()?;
        ensure!(answer.status == Status::UnsupportedVersion, "it was answered with {}", answer.status.name());
        ensure!(answer.version == VERSION, "the reply's header has version {}", answer.version);
        let told = answer.version_min..=answer.version_max;
        ensure!(told.contains(&VERSION) && !told.contains(&version), "the reply tells versions {told:?}");
        match Frame::read(&mut connect.stream) {
            Err(ReadError::Closed) => {}
            Err(error) => fail!("the connection stays open after the refusal: {error}"),
            Ok(_) => fail!("something follows the refusal"),
        }
    }
    Ok(())
}

fn no_confirmation(server: &Server) -> Outcome {
    // A request in the confirmation's place, right in every other way.
    for sequence in [1, 2] {
        let session = dialled(server, |_| {})?.confirm(|frame, mac| {
            let request = Request { namespace: &[], which: RequestWhich::Ping(Ping::default()) };
            *frame = Frame::new(Kind::Request, true, 1, sequence, &encode(&request), &[]);
            frame.sign_control(mac);
        })?;
        session.expect_closed("a request in the confirmation's place")?;
    }
    server.expect_alive()
}

fn wrong_confirmation(server: &Server) -> Outcome {
    type Change = fn(&mut Frame);
    let signed: &[(&str, Change)] = &[
        ("a confirmation with sequence 0", |frame| frame.header.sequence = 0.into()),
        ("a confirmation with sequence 2", |frame| frame.header.sequence = 2.into()),
        ("a confirmation under another key id", |frame| frame.header.id = (frame.header.id.get() ^ 1).into()),
        ("a confirmation of kind response", |frame| frame.header.kind = Kind::Response.code()),
        ("a confirmation of version 2", |frame| frame.header.version = 2),
    ];
    for (what, change) in signed {
        let session = dialled(server, |_| {})?.confirm(|frame, mac| {
            change(frame);
            frame.sign_control(mac);
        })?;
        session.expect_closed(what)?;
    }
    let session = dialled(server, |_| {})?.confirm(|frame, _| frame.header.mac[0] ^= 1)?;
    session.expect_closed("a confirmation with a wrong MAC")?;
    let key = server.key.clone();
    let session = dialled(server, |_| {})?.confirm(|frame, _| frame.sign_control(&key.connect_mac()))?;
    session.expect_closed("a confirmation signed with the shared key itself")?;
    let session = dialled(server, |_| {})?.confirm(|frame, mac| {
        let request = Request { namespace: &[], which: RequestWhich::Ping(Ping::default()) };
        let id = frame.header.id.get();
        *frame = Frame::new(Kind::Hello, true, id, 1, &encode(&request), &[]);
        frame.sign_control(mac);
    })?;
    session.expect_closed("a confirmation with a control message")?;
    server.expect_alive()
}

fn later_hello(server: &Server) -> Outcome {
    let mut session = server.connect()?;
    ping(&mut session, 1)?;
    let mut frame = session.confirmation();
    frame.header.sequence = session.out.sequence.into();
    frame.sign_control(&session.out.mac);
    session.send_hostile(&frame.bytes());
    session.expect_closed("a second confirmation")?;
    let mut session = server.connect()?;
    let mut frame = connect_frame(&server.key, &server.terms()?);
    frame.header.sequence = session.out.sequence.into();
    frame.sign_control(&session.out.mac);
    session.send_hostile(&frame.bytes());
    session.expect_closed("a second Connect")?;
    server.expect_alive()
}

fn replay(server: &Server) -> Outcome {
    let terms = server.terms()?;
    let mut session = Session::open(&server.target.address, &server.key, terms.clone())?;
    let confirmation = session.confirmation();
    let request = Request { namespace: &[], which: RequestWhich::Ping(Ping::default()) };
    let frame = session.frame(9, true, &request, &[]);
    session.send(&frame)?;
    session.replies(9, None)?;

    let mut stream = dial(&server.target.address)?;
    let recorded = [connect_frame(&server.key, &terms).bytes(), confirmation.bytes(), frame.bytes()].concat();
    // It may close as soon as it saw that the confirmation does not hold.
    let _ = stream.write_all(&recorded);
    // A replayed Connect has a valid MAC, and is answered.
    match Frame::read(&mut stream) {
        Ok(reply) => ensure!(reply.header.kind() == Kind::Hello, "a recorded request was answered"),
        Err(ReadError::Closed) => return Ok(()),
        Err(error) => fail!("a replayed Connect: {error}"),
    }
    expect_closed_in_silence(stream, "a recorded confirmation and request")?;

    // A frame of another connection, and one that the server itself sent.
    let mut other = server.connect()?;
    other.send_hostile(&frame.bytes());
    other.expect_closed("a frame of another connection")?;
    let mut reflected = server.connect()?;
    let ping_frame = reflected.frame(3, true, &request, &[]);
    reflected.send(&ping_frame)?;
    let reply = match Frame::read(&mut reflected.stream) {
        Ok(reply) => reply,
        Err(error) => fail!("no reply: {error}"),
    };
    reflected.send_hostile(&reply.bytes());
    reflected.expect_closed("its own frame, reflected")?;
    server.expect_alive()
}

fn no_connect(server: &Server) -> Outcome {
    let key = server.key.clone();
    let ping = encode(&Request { namespace: &[], which: RequestWhich::Ping(Ping::default()) });
    type Change<'a> = &'a dyn Fn(&mut Frame);
    let changes: &[(&str, Change<'_>)] = &[
        ("a first frame of kind request", &|frame| frame.header.kind = Kind::Request.code()),
        ("a first frame of kind response", &|frame| frame.header.kind = Kind::Response.code()),
        ("a first frame of kind 0", &|frame| frame.header.kind = 0),
        ("a Connect with sequence 1", &|frame| frame.header.sequence = 1.into()),
        ("a hello frame that holds a ping", &|frame| {
            *frame = Frame::new(Kind::Hello, true, frame.header.id.get(), 0, &ping, &[]);
        }),
    ];
    for (what, change) in changes {
        let connect = dialled(server, |frame| {
            change(frame);
            frame.sign_control(&key.connect_mac());
        })?;
        expect_closed_in_silence(connect.stream, what)?;
    }
    let connect = dialled(server, |frame| frame.header.magic = 0x3256_4b4d.into())?;
    expect_closed_in_silence(connect.stream, "a Connect with another magic")?;
    for garbage in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4), vec![0; 200], server.random().bytes(400)]
    {
        let mut stream = dial(&server.target.address)?;
        // It may close before it took all.
        let _ = stream.write_all(&garbage);
        expect_closed_in_silence(stream, "bytes of another protocol")?;
    }
    server.expect_alive()
}

/// Only the header is sent: a server that waits for the bytes it announces has reserved memory, or holds too much.
fn too_long(server: &Server) -> Outcome {
    let words_max = HELLO_SIZE_BYTES_MAX / 8;
    for (what, control_words, payload_length) in [
        ("a Connect of 1 word more than a hello may have", words_max - 8 + 1, 0),
        ("a Connect of 256 KiB", 32 * 1024, 0),
        ("a Connect of 32 GiB", u32::MAX, 0),
        ("a Connect with a payload of 1 MiB", 16, 1 << 20),
        ("a Connect with a payload of 4 GiB", 16, u32::MAX),
    ] {
        let mut frame = connect_frame(&server.key, &server.terms()?);
        frame.header.control_words = control_words.into();
        frame.header.payload_length = payload_length.into();
        frame.header.mac = server.key.connect_mac().tag(&[frame.header.signed_bytes()]);
        let mut stream = dial(&server.target.address)?;
        write(&mut stream, frame.header.as_bytes())?;
        let begun = Instant::now();
        expect_closed_in_silence(stream, what)?;
        let waited = begun.elapsed();
        let at_once = waited < Duration::from_millis(u64::from(SETUP_TIMEOUT_MS) - 1000);
        ensure!(at_once, "{what} was waited for, {} ms long", waited.as_millis());
    }
    server.expect_alive()
}

fn write(stream: &mut impl std::io::Write, bytes: &[u8]) -> Outcome {
    stream
        .write_all(bytes)
        .map_err(|error| Stop::Failed(format!("the server does not take a Connect: {error}")))
}

fn set_up_ends(server: &Server) -> Outcome {
    let connect = connect_frame(&server.key, &server.terms()?).bytes();
    let header = size_of::<Header>();
    let silent = dial(&server.target.address)?;
    let mut half = dial(&server.target.address)?;
    write(&mut half, &connect[..header + 8])?;
    let mut unconfirmed = dialled(server, |_| {})?;
    unconfirmed.answer()?;
    for (what, mut stream) in [
        ("a connection that says nothing", silent),
        ("half a Connect", half),
        ("a Connect that is never confirmed", unconfirmed.stream),
    ] {
        stream.set_read_timeout(Some(SETUP_PATIENCE)).map_err(|error| Stop::Failed(error.to_string()))?;
        match Frame::read(&mut stream) {
            Err(ReadError::Closed) => {}
            Err(error) => fail!("{what} is held longer than set-up may take: {error}"),
            Ok(_) => fail!("{what} was answered"),
        }
    }
    server.expect_alive()
}

fn many_in_set_up(server: &Server) -> Outcome {
    let mut established = server.connect()?;
    let mut crowd = Vec::new();
    for _ in 0..SETUP_CONNECTIONS_MAX + 44 {
        crowd.push(dial(&server.target.address)?);
    }
    let data = server.random().bytes(100_000);
    store(&mut established, &server.namespace(), b"key", &data)?;
    expect_value(&mut established, &server.namespace(), b"key", &data)?;
    // When their time is over, there is room again.
    for mut stream in crowd {
        stream.set_read_timeout(Some(SETUP_PATIENCE)).map_err(|error| Stop::Failed(error.to_string()))?;
        let read = Frame::read(&mut stream);
        ensure!(matches!(read, Err(ReadError::Closed)), "a silent connection is still held");
    }
    ping(&mut established, 1)?;
    server.expect_alive()
}

fn out_of_bounds(server: &Server) -> Outcome {
    let key = server.key.clone();
    let terms = Terms { bulk_macs: vec![0; 9], ..server.terms()? };
    let too_many = Dialled::send(&server.target.address, &server.key, terms, |_| {})?;
    // Nine are more than the bound: the message cannot even be encoded, so an empty one is sent.
    expect_closed_in_silence(too_many.stream, "a Connect without a control message")?;
    let changes: [fn(&mut Vec<u8>); 4] = [
        |control| control.fill(0),
        |control| control.truncate(8),
        |control| control[..8].fill(0xff),
        |control| control.iter_mut().skip(8).for_each(|byte| *byte = 0xff),
    ];
    for change in changes {
        let connect = dialled(server, |frame| {
            change(&mut frame.control);
            frame.header.control_words = ((frame.control.len() / 8) as u32).into();
            frame.sign_control(&key.connect_mac());
        })?;
        expect_closed_in_silence(connect.stream, "a Connect that cannot be read")?;
    }
    server.expect_alive()
}

fn reply_key(server: &Server) -> Outcome {
    // Whatever else the server holds: the reply names the Connect's key, and is signed by what is derived from it.
    // Both are checked with every connection; two at the same time must not mix them up.
    let (mut first, mut second) = (dialled(server, |_| {})?, dialled(server, |_| {})?);
    let (second_answer, _) = second.answer()?;
    let (first_answer, _) = first.answer()?;
    ensure!(first_answer.server_id == second_answer.server_id, "two connections tell two ids of one server");
    Ok(())
}
