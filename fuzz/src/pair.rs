//! Both ends of a connection after set-up, and the keys to sign anything with.

use std::time::Duration;

use memkv_transport::buf::BufPool;
use memkv_transport::receiver::Receiver;
use memkv_transport::sealer::Sealer;
use memkv_transport::session::{
    AwaitConfirmation, AwaitConnect, AwaitReply, ClientTerms, ConfirmationStep, ConnectStep, ReplyStep,
    ServerTerms, SetupGate,
};
use memkv_wire::frame::{HEADER_SIZE_BYTES, VERSION};
use memkv_wire::mac::{BulkAlgorithm, BulkKey, ControlMac, Direction, Key, KeyRing, Schedule};

pub const NOW: Duration = Duration::from_secs(1);

pub fn key() -> Key {
    Key::from_bytes([3; Key::SIZE_BYTES])
}

pub fn server_terms() -> ServerTerms {
    ServerTerms {
        server_id: [4; 16],
        server_name: "fuzzed".to_owned(),
        local_path: String::new(),
        queue_pairs: false,
        requests_in_flight_max: 16,
        lease_ms: 1000,
        bulk_macs: BulkAlgorithm::preference().to_vec(),
    }
}

pub fn begin() -> AwaitReply {
    AwaitReply::begin(&key(), &ClientTerms::new([1; 16], "fuzzer"), [2; 32], NOW)
        .expect("the terms are right")
}

pub fn await_connect() -> AwaitConnect {
    let permit = SetupGate::new(1).enter().expect("it is the only one");
    AwaitConnect::begin(permit, NOW)
}

/// A server's end that was given these bytes, piece by piece, until it wants no more; and how many it took.
pub fn feed_connect(mut setup: AwaitConnect, bytes: &[u8]) -> Option<(ConnectStep, usize)> {
    let mut taken = 0;
    loop {
        let space = setup.space();
        let part = space.len().min(bytes.len() - taken);
        if part == 0 {
            return None;
        }
        space[..part].copy_from_slice(&bytes[taken..taken + part]);
        taken += part;
        match setup.advance(part, NOW, &KeyRing::from(key()), &server_terms(), &[5; 32]) {
            Ok(ConnectStep::NeedBytes(more)) => setup = more,
            Ok(step) => return Some((step, taken)),
            Err(_) => return None,
        }
    }
}

/// What a server answers to the right Connect.
pub fn answered() -> (AwaitReply, Box<AwaitConfirmation>) {
    let client = begin();
    match feed_connect(await_connect(), client.connect()) {
        Some((ConnectStep::Answered(server), _)) => (client, server),
        other => panic!("the right Connect is answered, not {other:?}"),
    }
}

/// A client's sealer, the receiver at the other end, and the client's keys.
pub struct Pair {
    pub sealer: Sealer,
    pub receiver: Receiver,
    pub mac: ControlMac,
    pub bulk: BulkKey,
}

impl Pair {
    pub fn new() -> Pair {
        let (mut client, mut server) = answered();
        let connect = client.connect()[HEADER_SIZE_BYTES..].to_vec();
        let reply = server.reply().to_vec();
        client.space()[..reply.len()].copy_from_slice(&reply);
        let Ok(ReplyStep::Established(client)) = client.advance(reply.len(), NOW) else {
            panic!("the right reply is taken")
        };
        server.space()[..HEADER_SIZE_BYTES].copy_from_slice(&client.confirmation);
        let Ok(ConfirmationStep::Accepted(server)) = server.advance(HEADER_SIZE_BYTES, NOW) else {
            panic!("the right confirmation is taken")
        };
        let schedule = Schedule::new(&key(), &connect, &reply[HEADER_SIZE_BYTES..], VERSION);
        Pair {
            sealer: client.channel.split(BufPool::new(0)).0,
            receiver: server.channel.split(BufPool::new(8 << 20)).1,
            mac: schedule.control_mac(Direction::ClientToServer),
            bulk: schedule.bulk_key(Direction::ClientToServer, client.server.bulk_mac),
        }
    }
}
