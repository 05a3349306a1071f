//! Decoding allocates nothing, whatever the message; encoding allocates nothing once its buffer is large enough.

use memkv_wire::{
    BatchWrite, ControlBuf, EncodeError, List, Operation, Piece, Request, RequestWhich, Response, WriteItem,
    limits,
};

/// A BatchWrite that fills a frame's control message to the last item that fits.
fn largest_batch<T>(then: impl FnOnce(&Request<'_>) -> T) -> T {
    let key = [7; limits::KEY_SIZE_BYTES_MAX as usize];
    let checksum = [9; 16];
    let item = WriteItem { key: &key, length: limits::VALUE_SIZE_BYTES_MAX, checksum: Some(&checksum) };
    let piece = Piece { length: limits::BLOCK_SIZE_BYTES, checksum: Some(&checksum), ..Piece::default() };
    let room = limits::CONTROL_SIZE_BYTES_MAX as usize - 1024;
    let each = item.encoded_size_bytes().unwrap() + piece.encoded_size_bytes().unwrap();
    let (items, pieces) = (vec![item; room / each], vec![piece; room / each]);
    let batch = BatchWrite { items: List::from(&items), pieces: List::from(&pieces) };
    then(&Request { namespace: b"tenant", which: RequestWhich::BatchWrite(batch) })
}

/// Reads every byte that the batch points at.
fn sum(request: &Request<'_>) -> u64 {
    let RequestWhich::BatchWrite(batch) = request.which else { panic!("another arm: {request:?}") };
    let items =
        batch.items.iter().map(|item| item.length + item.key.iter().map(|b| u64::from(*b)).sum::<u64>());
    let pieces =
        batch.pieces.iter().map(|piece| u64::from(piece.length) + u64::from(piece.checksum.unwrap()[15]));
    items.sum::<u64>() + pieces.sum::<u64>()
}

#[test]
fn the_largest_batch_is_encoded_and_decoded_without_allocation() {
    largest_batch(|request| {
        let mut buf = ControlBuf::new();
        request.encode(&mut buf).unwrap();
        assert!(buf.control().len() > limits::CONTROL_SIZE_BYTES_MAX as usize * 99 / 100);
        let encoding = allocation_counter::measure(|| request.encode(&mut buf).unwrap());
        assert_eq!(encoding.count_total, 0);

        let mut read = 0;
        let decoding = allocation_counter::measure(|| {
            let message = buf.message().unwrap();
            read = sum(&Request::decode(&message).unwrap());
        });
        assert_eq!(decoding.count_total, 0);
        assert_eq!(read, sum(request));
    });
}

#[test]
fn a_buffer_made_large_enough_never_grows() {
    largest_batch(|request| {
        let mut buf = ControlBuf::with_capacity(limits::CONTROL_SIZE_BYTES_MAX as usize);
        let encoding = allocation_counter::measure(|| request.encode(&mut buf).unwrap());
        assert_eq!(encoding.count_total, 0);
    });
}

#[test]
fn refusals_allocate_nothing() {
    let mut buf = ControlBuf::new();
    let refusal = allocation_counter::measure(|| {
        let request = Request { namespace: &[0; 256], ..Request::default() };
        assert!(matches!(request.encode(&mut buf), Err(EncodeError::Bound { .. })));
    });
    assert_eq!(refusal.count_total, 0);
    // A response where a request belongs: `status` is read as the arm, and the arm's struct has other fields.
    let which = Operation::BatchRead.empty_reply();
    Response { retry_after_ms: 1, detail: "not a request", which, ..Response::default() }
        .encode(&mut buf)
        .unwrap();
    let refusal = allocation_counter::measure(|| {
        let message = buf.message().unwrap();
        assert!(Request::decode(&message).is_err());
    });
    assert_eq!(refusal.count_total, 0);
}
