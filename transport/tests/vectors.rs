//! Every known-answer vector of `transport/vectors`, which an independent implementation made (`tools/vectors`).

use std::path::Path;
use std::time::Duration;

use memkv_transport::buf::{BUDGET_SIZE_BYTES_MIN, BufPool};
use memkv_transport::receiver::{Next, Receiver};
use memkv_transport::sealer::Sealer;
use memkv_transport::session::{
    AwaitConnect, AwaitReply, ClientTerms, ConfirmationStep, ConnectStep, ReplyStep, ServerTerms, SetupGate,
};
use memkv_wire::frame::{Extent, Flags, Header, Kind};
use memkv_wire::mac::{BulkAlgorithm, BulkKey, ControlMac, Direction, Key, KeyRing, Schedule, salt};
use memkv_wire::{
    ConnectReply, ControlBuf, Message, Request, RequestWhich, Response, ResponseWhich, checksum,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zerocopy::IntoBytes;

fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    bytes(text).try_into().unwrap()
}

/// The bytes that the vectors describe instead of listing them.
#[derive(Deserialize)]
struct Pattern {
    size: usize,
    seed: usize,
}

impl Pattern {
    fn bytes(&self) -> Vec<u8> {
        (0..self.size).map(|i| (167 * i + 59 * (i >> 8) + 29 * (i >> 16) + self.seed) as u8).collect()
    }
}

fn algorithm(name: &str) -> BulkAlgorithm {
    let mut known = BulkAlgorithm::preference().into_iter();
    known.find(|algorithm| algorithm.name() == name).unwrap()
}

fn bulk_key(name: &str, key: &str) -> BulkKey {
    match algorithm(name) {
        BulkAlgorithm::HmacSha256 => BulkKey::HmacSha256(ControlMac::new(&array(key))),
        BulkAlgorithm::Aegis128X2 => BulkKey::Aegis128X2(array::<16>(key).into()),
        BulkAlgorithm::Aegis128X4 => BulkKey::Aegis128X4(array::<16>(key).into()),
    }
}

#[test]
fn primitives() {
    use aegis::aegis128x2::Aegis128X2Mac;
    use aegis::aegis128x4::Aegis128X4Mac;
    use hmac::{KeyInit, Mac};

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Primitives {
        hmac_sha256: Vec<HmacCase>,
        hkdf_sha256: Vec<HkdfCase>,
        aegis_mac128x2: Vec<AegisCase>,
        aegis_mac128x4: Vec<AegisCase>,
    }
    #[derive(Deserialize)]
    struct HmacCase {
        key: String,
        data: String,
        mac: String,
    }
    #[derive(Deserialize)]
    struct HkdfCase {
        secret: String,
        salt: String,
        info: String,
        output: String,
    }
    #[derive(Deserialize)]
    struct AegisCase {
        key: String,
        nonce: String,
        data: String,
        tag256: String,
    }
    let all: Primitives = read("primitives.json");
    assert!(!all.hmac_sha256.is_empty() && !all.hkdf_sha256.is_empty());
    assert!(!all.aegis_mac128x2.is_empty() && !all.aegis_mac128x4.is_empty());
    for case in &all.hmac_sha256 {
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&bytes(&case.key)).unwrap();
        mac.update(&bytes(&case.data));
        let made = mac.finalize().into_bytes();
        assert_eq!(made[..case.mac.len() / 2], bytes(&case.mac)[..]);
    }
    for case in &all.hkdf_sha256 {
        let hkdf = hkdf::Hkdf::<sha2::Sha256>::new(Some(&bytes(&case.salt)), &bytes(&case.secret));
        let mut okm = vec![0; case.output.len() / 2];
        hkdf.expand(&bytes(&case.info), &mut okm).unwrap();
        assert_eq!(okm, bytes(&case.output));
    }
    for case in &all.aegis_mac128x2 {
        let mut mac = Aegis128X2Mac::<32>::new_with_nonce(&array(&case.key), &array(&case.nonce));
        mac.update(&bytes(&case.data));
        assert_eq!(mac.finalize().as_slice(), bytes(&case.tag256));
    }
    for case in &all.aegis_mac128x4 {
        let mut mac = Aegis128X4Mac::<32>::new_with_nonce(&array(&case.key), &array(&case.nonce));
        mac.update(&bytes(&case.data));
        assert_eq!(mac.finalize().as_slice(), bytes(&case.tag256));
    }
}

#[test]
fn keys() {
    #[derive(Deserialize)]
    struct Keys {
        keys: Vec<Case>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Case {
        key: String,
        id: u32,
        id_bytes: String,
    }
    let all: Keys = read("keys.json");
    assert!(all.keys.len() > 2);
    for case in &all.keys {
        let id = Key::from_hex(&case.key).unwrap().id();
        assert_eq!(id.0, case.id);
        assert_eq!(id.0.to_le_bytes(), array(&case.id_bytes));
    }
}

#[test]
fn derivations() {
    #[derive(Deserialize)]
    struct Derivations {
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Case {
        shared_key: String,
        version: u8,
        connect: String,
        reply: String,
        salt: String,
        keys: Keys,
    }
    #[derive(Deserialize)]
    struct Keys {
        #[serde(rename = "client-to-server")]
        client_to_server: Usages,
        #[serde(rename = "server-to-client")]
        server_to_client: Usages,
    }
    #[derive(Deserialize)]
    struct Usages {
        control: String,
        #[serde(rename = "bulk hmac-sha256")]
        hmac_sha256: String,
        #[serde(rename = "bulk aegis-128x2")]
        aegis_128x2: String,
        #[serde(rename = "bulk aegis-128x4")]
        aegis_128x4: String,
    }
    let all: Derivations = read("derivations.json");
    assert!(all.cases.len() > 1);
    for case in &all.cases {
        let (connect, reply) = (bytes(&case.connect), bytes(&case.reply));
        assert_eq!(salt(&connect, &reply), array(&case.salt));
        let schedule =
            Schedule::new(&Key::from_hex(&case.shared_key).unwrap(), &connect, &reply, case.version);
        for (direction, expected) in [
            (Direction::ClientToServer, &case.keys.client_to_server),
            (Direction::ServerToClient, &case.keys.server_to_client),
        ] {
            // Derived keys are never shown, so they are compared by what they make.
            let message: &[&[u8]] = &[b"any message"];
            let control = ControlMac::new(&array(&expected.control));
            assert_eq!(schedule.control_mac(direction).tag(message), control.tag(message));
            for (name, key) in [
                ("hmac-sha256", &expected.hmac_sha256),
                ("aegis-128x2", &expected.aegis_128x2),
                ("aegis-128x4", &expected.aegis_128x4),
            ] {
                let derived = schedule.bulk_key(direction, algorithm(name));
                assert_eq!(derived.tag(message), bulk_key(name, key).tag(message));
            }
        }
    }
}

#[test]
fn control_macs() {
    #[derive(Deserialize)]
    struct ControlMacs {
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Case {
        key: String,
        kind: u8,
        flags: u16,
        id: u32,
        payload_length: usize,
        sequence: String,
        control: Pattern,
        header: String,
    }
    let all: ControlMacs = read("control_macs.json");
    assert!(all.cases.len() > 2);
    for case in &all.cases {
        let extent =
            Extent { control_size_bytes: case.control.size, payload_size_bytes: case.payload_length };
        let sequence = case.sequence.parse().unwrap();
        let mut header =
            Header::new(Kind::from_code(case.kind), Flags(case.flags), case.id, extent, sequence);
        let mac = ControlMac::new(&array(&case.key));
        header.mac = mac.tag(&[header.signed_bytes(), &case.control.bytes()]);
        assert_eq!(hex::encode(header.as_bytes()), case.header);
    }
}

#[test]
fn payload_tags() {
    #[derive(Deserialize)]
    struct PayloadTags {
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        mac: String,
        key: String,
        header: String,
        payload: Pattern,
        tag: String,
    }
    let all: PayloadTags = read("payload_tags.json");
    for mac in ["hmac-sha256", "aegis-128x2", "aegis-128x4"] {
        assert!(all.cases.iter().filter(|case| case.mac == mac).count() > 2);
    }
    for case in &all.cases {
        let tag = bulk_key(&case.mac, &case.key).tag(&[&bytes(&case.header), &case.payload.bytes()]);
        assert_eq!(hex::encode(tag), case.tag);
    }
}

#[test]
fn checksums() {
    #[derive(Deserialize)]
    struct Checksums {
        cases: Vec<Case>,
    }
    #[derive(Deserialize)]
    struct Case {
        #[serde(flatten)]
        pattern: Pattern,
        blocks: Vec<String>,
        value: String,
    }
    let all: Checksums = read("checksums.json");
    assert!(all.cases.len() > 2);
    for case in &all.cases {
        let value = case.pattern.bytes();
        let blocks: Vec<_> = value.chunks(checksum::BLOCK_SIZE_BYTES).map(checksum::block).collect();
        assert_eq!(blocks.iter().map(hex::encode).collect::<Vec<_>>(), case.blocks);
        assert_eq!(hex::encode(checksum::value(&blocks)), case.value);
        assert_eq!(checksum::value_of(&value), checksum::value(&blocks));
    }
}

// ---------------------------------------------------------------- whole connections

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exchange {
    shared_key: String,
    bulk_mac: String,
    frames: Vec<RecordedFrame>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordedFrame {
    direction: String,
    control_length: usize,
    payload_length: usize,
    frame: String,
}

impl RecordedFrame {
    fn control(&self) -> Vec<u8> {
        bytes(&self.frame)[64..][..self.control_length].to_vec()
    }

    fn payload(&self) -> Vec<u8> {
        bytes(&self.frame)[64 + self.control_length..][..self.payload_length].to_vec()
    }

    fn goes_up(&self) -> bool {
        match self.direction.as_str() {
            "client-to-server" => true,
            "server-to-client" => false,
            other => panic!("no direction: {other}"),
        }
    }
}

/// Both ends of the recorded connection, brought up by feeding each the other's recorded frames.
struct Ends {
    client: (Sealer, Receiver),
    server: (Sealer, Receiver),
}

fn set_up(exchange: &Exchange) -> Ends {
    let [connect, reply, confirmation, ..] = exchange.frames.as_slice() else { panic!("no set-up") };
    let key = Key::from_hex(&exchange.shared_key).unwrap();
    let pool = BufPool::new(BUDGET_SIZE_BYTES_MIN);
    let now = Duration::ZERO;

    let connect_control = connect.control();
    let message = Message::new(&connect_control).unwrap();
    let RequestWhich::Connect(offer) = Request::decode(&message).unwrap().which else { panic!("no Connect") };
    let mut terms = ClientTerms::new(*offer.client_id, offer.client_name);
    terms.bulk_macs =
        offer.bulk_macs.iter().map(|mac| BulkAlgorithm::from_code(mac.code()).unwrap()).collect();
    let mut client = AwaitReply::begin(&key, &terms, *offer.nonce, now).unwrap();
    assert_eq!(hex::encode(client.connect()), connect.frame);

    let reply_control = reply.control();
    let message = Message::new(&reply_control).unwrap();
    let ResponseWhich::Connect(answer) = Response::decode(&message).unwrap().which else {
        panic!("no reply")
    };
    let mut server = AwaitConnect::begin(SetupGate::default().enter().unwrap(), now);
    let size = feed(server.space(), connect);
    let step =
        server.advance(size, now, &KeyRing::from(key), &server_terms(&answer), answer.server_nonce).unwrap();
    let ConnectStep::Answered(mut server) = step else { panic!("{step:?}") };
    assert_eq!(hex::encode(server.reply()), reply.frame);

    let size = feed(client.space(), reply);
    let ReplyStep::Established(client) = client.advance(size, now).unwrap() else {
        panic!("not established")
    };
    assert_eq!(client.server.bulk_mac.name(), exchange.bulk_mac);
    assert_eq!(hex::encode(client.confirmation), confirmation.frame);
    let size = feed(server.space(), confirmation);
    let ConfirmationStep::Accepted(server) = server.advance(size, now).unwrap() else {
        panic!("not accepted")
    };
    Ends { client: client.channel.split(pool.clone()), server: server.channel.split(pool) }
}

fn server_terms(answer: &ConnectReply<'_>) -> ServerTerms {
    ServerTerms {
        server_id: *answer.server_id,
        server_name: answer.server_name.to_owned(),
        local_path: answer.local_path.to_owned(),
        queue_pairs: answer.queue_pairs,
        requests_in_flight_max: answer.requests_in_flight_max,
        lease_ms: answer.lease_ms,
        bulk_macs: BulkAlgorithm::preference().to_vec(),
    }
}

fn feed(space: &mut [u8], frame: &RecordedFrame) -> usize {
    let bytes = bytes(&frame.frame);
    space[..bytes.len()].copy_from_slice(&bytes);
    bytes.len()
}

fn replay(exchange: &Exchange) {
    let mut ends = set_up(exchange);
    for recorded in &exchange.frames[3..] {
        let ((sealer, _), (_, receiver)) = match recorded.goes_up() {
            true => (&mut ends.client, &mut ends.server),
            false => (&mut ends.server, &mut ends.client),
        };
        let control_bytes = recorded.control();
        let message = Message::new(&control_bytes).unwrap();
        let mut control = ControlBuf::new();
        match recorded.goes_up() {
            true => Request::decode(&message).unwrap().encode(&mut control).unwrap(),
            false => Response::decode(&message).unwrap().encode(&mut control).unwrap(),
        }
        let expected = bytes(&recorded.frame);
        let header = Header::read(&expected).unwrap();
        let payload = recorded.payload();
        let parts = [&payload];
        let frame = sealer.seal(header.id.get(), header.flags().last(), &mut control, &parts).unwrap();
        assert_eq!(frame.slices().collect::<Vec<_>>().concat(), expected);

        let mut rest = expected.as_slice();
        while !rest.is_empty() {
            assert!(matches!(receiver.next_frame().unwrap(), Next::NeedBytes));
            let space = receiver.space();
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            receiver.advance(count);
            rest = &rest[count..];
        }
        let Next::Frame(received) = receiver.next_frame().unwrap() else { panic!("the frame is whole") };
        assert_eq!(received.control, control_bytes);
        assert_eq!(received.request_id, header.id.get());
        assert_eq!(received.payload.as_deref().unwrap_or_default(), payload);
    }
}

#[test]
fn exchange_hmac_sha256() {
    replay(&read("exchange_hmac_sha256.json"));
}

#[test]
fn exchange_aegis_128x2() {
    replay(&read("exchange_aegis_128x2.json"));
}

#[test]
fn exchange_aegis_128x4() {
    replay(&read("exchange_aegis_128x4.json"));
}
