//! Set-up of a connection, at both ends: any bytes, right ones that were changed, and wrong ones that are signed.

use memkv_transport::session::{ConfirmationStep, ConnectStep, ReplyStep};
use memkv_wire::frame::HEADER_SIZE_BYTES;
use memkv_wire::mac::{Direction, Schedule};

use crate::pair::{NOW, answered, await_connect, begin, feed_connect, key};

/// The first byte says which end, and what the others are.
pub fn run(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    match mode % 5 {
        0 => drop(feed_connect(await_connect(), rest)),
        1 => {
            let mut connect = begin().connect().to_vec();
            let changed = change(&mut connect, rest);
            let answered =
                matches!(feed_connect(await_connect(), &connect), Some((ConnectStep::Answered(_), _)));
            assert!(!(changed && answered), "a Connect that was changed was answered");
        }
        2 => drop(feed_connect(
            await_connect(),
            &signed(rest, |bytes, head| key().connect_mac().tag(&[head, bytes])),
        )),
        3 => reply(rest),
        _ => confirmation(rest),
    }
}

/// Flips bits: each byte of `by` in its place.
fn change(bytes: &mut [u8], by: &[u8]) -> bool {
    bytes.iter_mut().zip(by).for_each(|(byte, by)| *byte ^= by);
    bytes.iter().zip(by).any(|(_, by)| *by != 0)
}

/// A hello frame: 32 bytes of header, then a control message; the MAC is made for them.
fn signed(data: &[u8], tag: impl Fn(&[u8], &[u8]) -> [u8; 32]) -> Vec<u8> {
    let (head, control) = data.split_at(data.len().min(32));
    let mut head = head.to_vec();
    head.resize(32, 0);
    let mac = tag(control, &head);
    [&head, &mac[..], control].concat()
}

/// A client's end, given a reply: changed, or made of anything and signed under the derived key.
fn reply(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    let (mut client, server) = answered();
    let (bytes, changed) = if mode % 2 == 0 {
        let mut bytes = server.reply().to_vec();
        let changed = change(&mut bytes, rest);
        (bytes, changed)
    } else {
        let connect = client.connect()[HEADER_SIZE_BYTES..].to_vec();
        let tag = |control: &[u8], head: &[u8]| {
            let schedule = Schedule::new(&key(), &connect, control, head[4]);
            schedule.control_mac(Direction::ServerToClient).tag(&[head, control])
        };
        (signed(rest, tag), false)
    };
    let part = client.space().len().min(bytes.len());
    client.space()[..part].copy_from_slice(&bytes[..part]);
    if let Ok(ReplyStep::Established(established)) = client.advance(part, NOW) {
        assert!(!changed, "a reply that was changed was taken");
        assert!(established.server.version_min <= established.server.version_max || mode % 2 == 1);
    }
}

/// A server's end, given anything for a confirmation: nobody can make one without the reply.
fn confirmation(data: &[u8]) {
    let (_, mut server) = answered();
    let part = server.space().len().min(data.len());
    server.space()[..part].copy_from_slice(&data[..part]);
    let taken = matches!(server.advance(part, NOW), Ok(ConfirmationStep::Accepted(_)));
    assert!(!taken, "a confirmation by chance was taken");
}
