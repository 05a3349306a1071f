//! Messages as callers build and read them.

use memkv_wire::{
    BatchWrite, Bound, ConnectReply, ControlBuf, DecodeError, EncodeError, List, ListManifestsReply,
    ManifestEntry, Message, Operation, Piece, PieceWhich, Region, Request, RequestWhich, Response,
    ResponseWhich, Status, WriteItem,
};

#[test]
fn a_batch_comes_back_as_it_went() {
    let keys: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; 1 + usize::from(n)]).collect();
    let checksum = [7; 16];
    let items: Vec<WriteItem<'_>> = keys
        .iter()
        .map(|key| WriteItem { key, length: 1 << 20, checksum: (key[0] % 2 == 0).then_some(&checksum) })
        .collect();
    let mac = [9; 32];
    let region = Region { id: 3, offset: u64::MAX, mac: Some(&mac) };
    let pieces = [
        Piece { index: 0, offset: 0, length: 5, checksum: None, which: PieceWhich::Inline },
        Piece {
            index: 4095,
            offset: 1,
            length: 0,
            checksum: Some(&checksum),
            which: PieceWhich::Region(region),
        },
    ];
    let batch = BatchWrite { items: List::from(&items), pieces: List::from(&pieces) };
    let request = Request { namespace: b"tenant", which: RequestWhich::BatchWrite(batch) };

    let mut buf = ControlBuf::new();
    request.encode(&mut buf).unwrap();
    assert_eq!(buf.control().len(), request.encoded_size_bytes().unwrap());
    let message = buf.message().unwrap();
    let read = Request::decode(&message).unwrap();
    assert_eq!(read, request);
    let RequestWhich::BatchWrite(read) = read.which else { panic!("another arm: {read:?}") };
    assert_eq!(read.items.get(99).unwrap().key, &keys[99][..]);
    assert_eq!(read.items.get(100), None);
}

#[test]
fn bounds_hold_in_both_directions() {
    let request = |key| Request {
        namespace: b"",
        which: RequestWhich::Lookup(memkv_wire::Lookup { key, lease_ms: 0 }),
    };
    let mut buf = ControlBuf::new();
    let long = [1; 513];
    assert_eq!(
        request(&long).encode(&mut buf),
        Err(EncodeError::Bound { field: "Lookup.key", bound: Bound::TooLong { max: 512, actual: 513 } })
    );
    assert_eq!(
        request(&[]).encode(&mut buf),
        Err(EncodeError::Bound { field: "Lookup.key", bound: Bound::TooShort { min: 1, actual: 0 } })
    );

    // The same bound seen by a reader: a message whose key pointer is null.
    request(b"key").encode(&mut buf).unwrap();
    let mut bytes = buf.control().to_vec();
    let key_pointer = bytes.len() - 16;
    bytes[key_pointer..key_pointer + 8].fill(0);
    assert_eq!(
        Request::decode(&Message::new(&bytes).unwrap()),
        Err(DecodeError::Bound { field: "Lookup.key", bound: Bound::TooShort { min: 1, actual: 0 } })
    );
}

#[test]
fn unknown_codes_and_arms_are_kept() {
    let response =
        Response { status: Status::Unknown(999), which: ResponseWhich::Unknown(77), ..Response::default() };
    let mut buf = ControlBuf::new();
    response.encode(&mut buf).unwrap();
    let message = buf.message().unwrap();
    let read = Response::decode(&message).unwrap();
    assert_eq!(read, response);
    assert_eq!(read.which.operation(), None);
    assert_eq!(read.which.opcode(), 77);
}

#[test]
fn every_empty_reply_can_be_sent() {
    let mut buf = ControlBuf::new();
    for operation in Operation::ALL {
        let which = operation.empty_reply();
        assert_eq!(which.operation(), Some(*operation));
        assert_eq!(Operation::from_opcode(operation.opcode()), Some(*operation));
        let response = Response { status: Status::Internal, retry_after_ms: 1, detail: "why", which };
        response.encode(&mut buf).unwrap();
        let message = buf.message().unwrap();
        assert_eq!(Response::decode(&message).unwrap(), response);
    }
    assert_eq!(ConnectReply::default().requests_in_flight_max, 1);
}

#[test]
fn a_message_over_its_limit_is_refused_and_its_size_told() {
    let name = [0; 1024];
    let entry = ManifestEntry { name: &name, ..ManifestEntry::default() };
    let entries = [entry; 1024];
    let reply = ListManifestsReply { entries: List::from(&entries), more: true };
    let response = Response { which: ResponseWhich::ListManifests(reply), ..Response::default() };
    let size = response.encoded_size_bytes().unwrap();
    assert!(size > 1024 * 1024);
    assert_eq!(
        response.encode(&mut ControlBuf::new()),
        Err(EncodeError::TooLong { length: size, max: memkv_wire::limits::CONTROL_SIZE_BYTES_MAX as usize })
    );
}
